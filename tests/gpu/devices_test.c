/*
 * Which devices the cuda backend takes and what it says of them, on the stand-in: a report touches no more devices than it is asked for
 * and goes on after one that cannot be used; a device without code for it is no device; every refusal says what to do next.
 */
#include "base/error.h"
#include "tests/gpu/standin/cuda_runtime_api.h"
#include "tests/gpu/standin/nccl.h"
#include "tests/gpu/standin/standin.h"
#include "tests/support/backend_under_test.h"
#include "tests/support/small_nets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct backend *const cuda = BACKEND_UNDER_TEST;
static struct net net;

static int set_up(void **state)
{
    (void)state;
    small_net(&net, 1, 18, PADDING_SAME);
    return 0;
}

/* One device as all others have it, nothing left, no rule broken. */
static int clean(void **state)
{
    (void)state;
    standin_set_devices(1);
    standin_set_capability(80);
    standin_bar_device(-1, cudaSuccess);
    standin_set_memory((size_t)4 << 30);
    assert_int_equal(standin_findings(), 0);
    assert_int_equal(standin_device_bytes(), 0);
    assert_int_equal(standin_pinned_bytes(), 0);
    assert_int_equal(standin_handles(), 0);
    return 0;
}

static void assert_says(const char *text, const char *wanted)
{
    if (!strstr(text, wanted))
        fail_msg("'%s' does not say '%s'", text, wanted);
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

/* A context takes hundreds of MB of a card that may be another's. */
static void a_report_opens_no_device_beyond_its_limit(void **state)
{
    struct backend_report report;
    (void)state;
    standin_set_devices(4);
    standin_opened();
    assert_int_equal(cuda->report(&net, PRECISION_FP32, 1, &report), 0);
    assert_int_equal(standin_opened(), 1);
    assert_int_equal(report.devices, 1);
    assert_int_equal(cuda->report(&net, PRECISION_FP32, 3, &report), 0);
    assert_int_equal(standin_opened(), 7);
    assert_int_equal(report.devices, 3);
    assert_int_equal(cuda->report(&net, PRECISION_FP32, BACKEND_DEVICES_MAX, &report), 0);
    assert_int_equal(standin_opened(), 15);
    assert_int_equal(report.devices, 4);
}

static void a_report_goes_on_after_a_device_that_cannot_be_used(void **state)
{
    struct backend_report report;
    (void)state;
    standin_set_devices(4);
    standin_bar_device(2, cudaErrorDevicesUnavailable);
    assert_int_equal(cuda->report(&net, PRECISION_FP32, BACKEND_DEVICES_MAX, &report), 0);
    assert_int_equal(report.devices, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(report.device[i].name, "stand-in");
        assert_string_equal(report.device[i].capability, "8.0");
        assert_int_equal(report.device[i].error[0] == '\0', i != 2);
        assert_int_equal(report.device[i].memory_bytes, i == 2 ? 0 : (size_t)4 << 30);
        assert_int_equal(report.device[i].plan_images > 0, i != 2);
    }
    assert_says(report.device[2].error, "exclusive mode");
}

/* --- devices there is no code for --------------------------------------------------------------------------------- */

static void an_old_device_is_no_device(void **state)
{
    struct backend_context *context = NULL;
    struct backend_report report;
    (void)state;
    standin_set_devices(2);
    standin_set_capability(70);
    standin_opened();
    for (int devices = 1; devices <= 2; devices++) {
        assert_int_equal(cuda->open(1, devices, &context), ERROR_UNAVAILABLE);
        assert_says(error_message(), "not supported: its compute capability is 7.0, and 7.5 or newer is needed");
        assert_says(error_message(), "worker.backend = cpu");
    }
    assert_int_equal(cuda->report(&net, PRECISION_FP32, 2, &report), 0);
    assert_int_equal(report.devices, 2);
    assert_string_equal(report.device[1].capability, "7.0");
    assert_says(report.device[1].error, "device 1 is not supported");
    assert_int_equal(report.device[1].plan_images, 0);
    assert_int_equal(standin_opened(), 0);
    standin_set_capability(75);
    assert_int_equal(cuda->open(1, 1, &context), 0);
    cuda->close(context);
}

/* --- what to do next ---------------------------------------------------------------------------------------------- */

/* Each way in which a device cannot be opened is one in which the processor may take over, and the words are about its cause. */
static void every_refusal_says_what_to_do(void **state)
{
    static const struct {
        int status;
        const char *words[4];
    } cases[] = {
        {cudaErrorNoDevice,                   {"ls -l /dev/nvidia*", "may not open it", "video", "worker.backend = cpu"}},
        {cudaErrorInsufficientDriver,         {"driver 580", "worker.backend = cpu"}                                    },
        {cudaErrorStubLibrary,                {"stub", "LD_LIBRARY_PATH", "worker.backend = cpu"}                       },
        {cudaErrorOperatingSystem,            {"ls -l /dev/nvidia*", "DeviceAllow"}                                     },
        {cudaErrorNotPermitted,               {"ls -l /dev/nvidia*", "DeviceAllow"}                                     },
        {cudaErrorUnsupportedPtxVersion,      {"driver 580"}                                                            },
        {cudaErrorUnknown,                    {"/dev/nvidia-uvm", "DeviceAllow", "device is lost", "Xid"}               },
        {cudaErrorCompatNotSupportedOnDevice, {"cuda-compat", "driver 580", "LD_LIBRARY_PATH"}                          },
        {cudaErrorMpsConnectionFailed,        {"nvidia-cuda-mps-control", "cannot be reached"}                          },
        {cudaErrorMpsRpcFailure,              {"nvidia-cuda-mps-control", "does not answer"}                            },
        {cudaErrorMpsServerNotReady,          {"nvidia-cuda-mps-control", "starting"}                                   },
        {cudaErrorMpsMaxClientsReached,       {"nvidia-cuda-mps-control", "clients"}                                    },
        {cudaErrorMpsMaxConnectionsReached,   {"nvidia-cuda-mps-control", "connections"}                                },
        {cudaErrorJitCompilerNotFound,        {"libnvidia-ptxjitcompiler"}                                              },
        {cudaErrorJitCompilationDisabled,     {"CUDA_DISABLE_PTX_JIT"}                                                  },
        {cudaErrorDeviceNotLicensed,          {"license", "nvidia-gridd"}                                               },
        {cudaErrorDevicesUnavailable,         {"exclusive mode"}                                                        },
    };
    struct backend_context *context = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        standin_bar_device(0, cases[i].status);
        assert_int_equal(cuda->open(1, 1, &context), ERROR_UNAVAILABLE);
        for (int word = 0; word < 4 && cases[i].words[word]; word++)
            assert_says(error_message(), cases[i].words[word]);
    }
}

static void ranks_that_cannot_connect_say_what_to_do(void **state)
{
    struct backend_context *context = NULL;
    (void)state;
    standin_set_devices(2);
    standin_refuse_connection(ncclSystemError);
    assert_int_equal(cuda->open(1, 2, &context), ERROR_UNAVAILABLE);
    standin_refuse_connection(ncclSuccess);
    assert_says(error_message(), "NCCL_SOCKET_IFNAME");
    assert_says(error_message(), "RestrictAddressFamilies");
    assert_says(error_message(), "/dev/shm");
    assert_says(error_message(), "NCCL_DEBUG=WARN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_report_opens_no_device_beyond_its_limit, clean),
        cmocka_unit_test_teardown(a_report_goes_on_after_a_device_that_cannot_be_used, clean),
        cmocka_unit_test_teardown(an_old_device_is_no_device, clean),
        cmocka_unit_test_teardown(every_refusal_says_what_to_do, clean),
        cmocka_unit_test_teardown(ranks_that_cannot_connect_say_what_to_do, clean),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
