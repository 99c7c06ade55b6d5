/* The door to onnx/: in builds without it, files of ONNX are refused by name. */
#include <string.h>

#include "onnx.h"
#include "zoo.h"

bool fst_onnx_is_built(void)
{
#ifdef FST_WITH_ONNX
    return true;
#else
    return false;
#endif
}

/* A protobuf message whose first field is a version (of the format, 3 to some 20), then another of its fields. */
bool fst_onnx_probe(const unsigned char *head, size_t len)
{
    static const unsigned char next[] = {0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72};
    return len > 3 && head[0] == 0x08 && head[1] >= 1 && head[1] <= 32 && memchr(next, head[2], sizeof next);
}

#ifndef FST_WITH_ONNX
fst_status fst__onnx_export(const fst_model *m, const char *path, bool fold, const fst_pair *pairs, size_t npairs,
                            char digest[FST_DIGEST_HEX], fst_error *err)
{
    (void)m, (void)fold, (void)pairs, (void)npairs, (void)digest;
    return fst_fail(err, FST_E_UNSUPPORTED, "%s: this build writes no ONNX; it needs libprotobuf-c", path);
}
#endif

fst_status fst_model_export_onnx(const fst_model *m, const char *path, const fst_onnx_options *o, const fst_pair *more,
                                 size_t nmore, char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct fst__model_meta t;
    fst_status s = fst_model_need_f32(m, "this", "cannot be exported", err);
    if (!s)
        s = fst__model_meta(&t, m, "onnx", more, nmore, err);
    if (s)
        return s;
    s = fst__onnx_export(m, path, o && o->fold, t.pairs, t.count, digest, err);
    fst__model_meta_release(&t);
    return s;
}
