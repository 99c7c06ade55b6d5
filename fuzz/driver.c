/* Replays a folder of inputs through a fuzz target, so that every input that once broke a parser is
 * tried by the ordinary tests, under whatever compiler and sanitizer they use. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    unsigned char *data = malloc(1 << 24);
    size_t n = data ? fread(data, 1, 1 << 24, f) : 0;
    fclose(f);
    /* an exact-size copy, so that a sanitizer sees a read behind the end */
    unsigned char *exact = malloc(n ? n : 1);
    for (size_t i = 0; exact && i < n; i++)
        exact[i] = data[i];
    if (exact)
        LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        struct dirent *e;
        while (d && (e = readdir(d))) {
            char path[4096];
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (replay(path) == 0)
                count++;
        }
        if (d)
            closedir(d);
    }
    printf("%d inputs replayed\n", count);
    return count ? 0 : 1;
}
