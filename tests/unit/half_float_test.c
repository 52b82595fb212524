/* Half precision against its definition, for every one of the 65,536 values and around every rounding
 * boundary. */
#include "base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* IEEE 754-2019, 3.4: sign, 5 bits of exponent, 10 of fraction. */
static double by_definition(uint16_t half)
{
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double value = exponent == 0    ? ldexp(fraction, -24)
                   : exponent == 31 ? (fraction ? NAN : INFINITY)
                                    : ldexp(1024 + fraction, exponent - 25);
    return half & 0x8000 ? -value : value;
}

static void every_half_has_its_value(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        double expected = by_definition((uint16_t)half), value = (double)half_to_float((uint16_t)half);
        assert_true(isnan(expected) ? isnan(value) : value == expected);
        assert_int_equal(signbit(half_to_float((uint16_t)half)) != 0, half >> 15);
    }
}

static void every_half_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 65536; half++) {
        uint16_t back = half_from_float(half_to_float((uint16_t)half));
        if (isnan(by_definition((uint16_t)half)))
            assert_true(isnan(by_definition(back)));
        else
            assert_int_equal(back, half);
    }
}

/* Between two neighbours: below the middle down, above it up, the middle to the even one. */
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (uint16_t half = 0; half < 0x7bff; half++) {
        float middle = (float)((by_definition(half) + by_definition((uint16_t)(half + 1))) / 2);
        uint16_t even = half & 1 ? (uint16_t)(half + 1) : half;
        assert_int_equal(half_from_float(middle), even);
        assert_int_equal(half_from_float(nextafterf(middle, 0)), half);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), half + 1);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
    }
}

static void overflow_becomes_infinity(void **state)
{
    (void)state;
    assert_int_equal(half_from_float(65504), 0x7bff);
    assert_int_equal(half_from_float(65519.99f), 0x7bff);
    assert_int_equal(half_from_float(65520), 0x7c00); /* half way to 65536 */
    assert_int_equal(half_from_float(-1e30f), 0xfc00);
    assert_int_equal(half_from_float(INFINITY), 0x7c00);
    assert_int_equal(half_from_float(1e-30f), 0);
    assert_int_equal(half_from_float(-1e-30f), 0x8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_has_its_value),
        cmocka_unit_test(every_half_survives_the_round_trip),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(overflow_becomes_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
