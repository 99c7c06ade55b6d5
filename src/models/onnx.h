/* What onnx/ does for the rest of this folder; only in builds with ONNX. */
#ifndef FST_MODELS_ONNX_H
#define FST_MODELS_ONNX_H

#include "fedstill/models.h"

fst_status fst__onnx_export(const fst_model *m, const char *path, bool fold, const fst_pair *pairs, size_t npairs,
                            char digest[FST_DIGEST_HEX], fst_error *err);

#endif
