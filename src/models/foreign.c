/*
 * What a file is that is no model here, told by its first bytes, and what its owner can do about it. Only for messages:
 * nothing is read by what stands here.
 */
#include <ctype.h>
#include <string.h>

#include "weights.h"

#define NEEDED "weights are read from safetensors and from files of torch.save"

/* Files that begin alike. `at`: where the bytes stand. */
static const struct {
    size_t at, len;
    const char *bytes, *is;
} known[] = {
    {0, 43, "version https://git-lfs.github.com/spec/v1\n",
     "a pointer of Git LFS, not the file itself: run git lfs pull"},
    {0, 4, "\x89HDF", "HDF5 (as Keras saves models); " NEEDED},
    {0, 4, "GGUF", "GGUF; " NEEDED},
    {4, 4, "TFL3", "a TensorFlow Lite model; " NEEDED},
    {0, 2, "\x1f\x8b", "compressed by gzip; unpack it"},
    {0, 3, "BZh", "compressed by bzip2; unpack it"},
    {0, 6, "\xFD\x37zXZ\0", "compressed by xz; unpack it"},
    {0, 4, "\x28\xB5\x2F\xFD", "compressed by zstd; unpack it"},
    {0, 6, "7z\xBC\xAF\x27\x1C", "a 7z archive; unpack it"},
    {0, 4, "Rar!", "a RAR archive; unpack it"},
    {257, 5, "ustar", "a tar archive; unpack it"},
    {0, 6, "\x93NUMPY", "one NumPy array without a name; " NEEDED},
    {0, 4, "%PDF", "a PDF document, not weights"},
    {0, 16, "SQLite format 3\0", "an SQLite database, not weights"},
    {0, 8, "\x89PNG\r\n\x1a\n", "a PNG picture, not weights"},
    {0, 3, "\xFF\xD8\xFF", "a JPEG picture, not weights"},
    {0, 4,
     "\x7f"
     "ELF",
     "a program, not weights"},
};

/* Whether a text begins with word, whatever the case of its letters. */
static bool begins(const char *text, size_t len, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i < n; i++)
        if (i >= len || tolower((unsigned char)text[i]) != word[i])
            return false;
    return true;
}

/* What a text is; NULL for bytes that are none. */
static const char *text_kind(const unsigned char *head, size_t len)
{
    const char *text = (const char *)head;
    size_t at = len >= 3 && !memcmp(head, "\xEF\xBB\xBF", 3) ? 3 : 0;
    for (size_t i = at; i < len; i++)
        if (head[i] < 32 && !strchr("\t\n\r\f", head[i]))
            return NULL;
    while (at < len && isspace(head[at]))
        at++;
    text += at;
    len -= at;
    if (len == 0)
        return "empty, not weights";
    if (begins(text, len, "<!doctype html") || begins(text, len, "<html") || begins(text, len, "<head"))
        return "an HTML page, not weights: the download gave a page in their place";
    if (text[0] == '<')
        return "an XML document, not weights: the download may have given an error in their place";
    if (text[0] == '{' || text[0] == '[')
        return "a JSON text, not weights";
    return "a text, not weights";
}

const char *fst__foreign_kind(const unsigned char *head, size_t len)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (len >= known[i].at + known[i].len && !memcmp(head + known[i].at, known[i].bytes, known[i].len))
            return known[i].is;
    if (fst_onnx_probe(head, len))
        return fst_onnx_is_built() ? "an ONNX model; `fedstill model import` makes a model file of it"
                                   : "an ONNX model, which this build does not read: it needs libprotobuf-c";
    if (len >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5)
        return "a pickle, but not one of torch.save; in Python, save the state_dict with torch.save";
    const char *text = text_kind(head, len);
    /* a protobuf whose first field is a message */
    return !text && len >= 3 && head[0] == 0x0a ? "a protobuf (a TensorFlow graph?); " NEEDED : text;
}
