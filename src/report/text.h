/* Small helpers that the report's files share. */
#ifndef FST_REPORT_TEXT_H
#define FST_REPORT_TEXT_H

#include "fedstill/report.h"

/* Decodes one character; a byte that is not UTF-8 is U+FFFD and one byte long. Returns the bytes taken. */
size_t fst__utf8_next(const char *text, uint32_t *code);
/* What a terminal obeys, or what reorders or hides the text around it: controls, marks of direction, separators and
 * invisible characters. The joiners U+200C and U+200D belong to ordinary words and are none. */
bool fst__is_unprintable(uint32_t c);
/* n blanks; n times `what`. */
FST_MUST fst_status fst__pad(fst_buf *out, size_t n, fst_error *err);
FST_MUST fst_status fst__repeat(fst_buf *out, const char *what, size_t n, fst_error *err);

#endif
