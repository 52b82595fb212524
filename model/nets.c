/* The networks by name; see net.h. */
#include "base/error.h"
#include "base/text.h"
#include "model/net.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    void (*build)(int channels, int side, struct net *ret_net);
    int tensorflow;
    int multiple; /* of which the side must be */
} nets[] = {
    {"efficientnet_b0",       net_efficientnet_b0,    0, 1 },
    {"tf_efficientnet_b0",    net_efficientnet_b0,    1, 1 },
    {"efficientnet_lite0",    net_efficientnet_lite0, 0, 1 },
    {"tf_efficientnet_lite0", net_efficientnet_lite0, 1, 1 },
    {"walmsley2020",          net_walmsley2020,       0, 16},
};

#define SIDE_MIN 32

int net_by_name(const char *name, int channels, int side, struct net *ret_net)
{
    char names[200] = "";
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", nets[i].name);
        if (strcmp(nets[i].name, name) != 0)
            continue;
        if (side < SIDE_MIN)
            return error_set(ERROR_INPUT, "%s cannot see images of %d pixels: at least %d", name, side, SIDE_MIN);
        if (side % nets[i].multiple)
            return error_set(ERROR_INPUT, "%s cannot see images of %d pixels: their side is a multiple of %d", name,
                             side, nets[i].multiple);
        nets[i].build(channels, side, ret_net);
        if (nets[i].tensorflow)
            net_use_tensorflow_conventions(ret_net);
        return 0;
    }
    return error_set(ERROR_INPUT, "no network is called '%.48s': there are %s", name, names);
}
