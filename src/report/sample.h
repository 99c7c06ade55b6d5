/* A sample as a small picture, for sheets and for the HTML report. */
#ifndef FST_REPORT_SAMPLE_H
#define FST_REPORT_SAMPLE_H

#include "surface.h"

/* An image as it is, a signal's spectrogram; other shapes' spectrogram over their elements. */
FST_MUST fst_status fst__sample_tile(const fst_sample *s, fst__image *out, fst_error *err);
/* Whether that keeps its shape when it is shown, as images do and spectrograms need not. */
bool fst__sample_is_image(const fst_sample *s);

#endif
