/* Kernels that make the network's input from stored bytes: model/augment_look.h itself, a thread per value. */
#ifndef TRIAGE_GPU_KERNELS_LOOK_H
#define TRIAGE_GPU_KERNELS_LOOK_H

#include "gpu/values.h"

extern "C" {
#include "model/augment_look.h"
}

/* Every value of every view; those of LOOK_NEAREST still without contrast. */
struct look_views : plain_kernel {
    struct arguments {
        const uint8_t *bytes;            /* [images][pixel_side][pixel_side][channels] */
        const struct augment_look *look; /* [images] */
        float *target;                   /* [images][side][side][channels] OUTPUT */
        size_t images;
        int pixel_side, side, channels;
    };
    HD void phase(int, const arguments &a, shared &, registers &, const place &at)
    {
        size_t side = (size_t)a.side, bytes = (size_t)a.pixel_side * (size_t)a.pixel_side * (size_t)a.channels;
        for (struct walk w = walk_from(at, a.images * side * side * (size_t)a.channels, (unsigned)a.channels);
             inside(w); walk_on(&w)) {
            size_t image = w.row / side / side;
            struct augment_source source = {a.bytes + image * bytes, a.pixel_side, a.channels};
            a.target[w.index] = look_value(a.look + image, &source, a.side, (int)(w.row % side),
                                           (int)(w.row / side % side), (int)w.channel);
        }
    }
};

/* Contrast about the mean of each channel, which is summed in a fixed order. A block per image and channel. */
struct look_contrast {
    enum { threads = THREADS };
    struct arguments {
        float *target;                   /* [images][pixels][channels] */
        const struct augment_look *look; /* [images]; only LOOK_NEAREST has a contrast */
        size_t pixels, channels;
    };
    struct shared {
        double sum[THREADS];
    };
    typedef nothing registers;
    HD int phases(const arguments &)
    {
        return 3;
    }
    HD void phase(int phase, const arguments &a, shared &s, registers &, const place &at)
    {
        size_t image = at.block / a.channels;
        float *value = a.target + image * a.pixels * a.channels + at.block % a.channels;
        if (a.look[image].kind != LOOK_NEAREST)
            return;
        if (phase == 0) {
            double sum = 0;
            for (size_t i = at.thread; i < a.pixels; i += THREADS)
                sum += (double)value[i * a.channels];
            s.sum[at.thread] = sum;
        } else if (phase == 1) {
            double sum = 0;
            for (int i = 0; i < THREADS && at.thread == 0; i++)
                sum += s.sum[i];
            if (at.thread == 0)
                s.sum[0] = sum;
        } else {
            float mean = (float)(s.sum[0] / (double)a.pixels);
            for (size_t i = at.thread; i < a.pixels; i += THREADS)
                value[i * a.channels] = (value[i * a.channels] - mean) * a.look[image].contrast + mean;
        }
    }
};

#endif
