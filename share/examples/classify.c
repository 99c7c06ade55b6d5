/*
 * Classifies an image with a model file:
 *
 *     cc classify.c $(pkg-config --cflags --libs fedstill) -o classify
 *     ./classify model.safetensors digit.png
 *
 * The model file says how its samples were normalised, and a classifier applies that by itself.
 */
#include <fedstill/infer.h>
#include <stdio.h>

static fst_status classify(const fst_model *m, const char *path, fst_error *err)
{
    fst_classifier *c = NULL;
    fst_buf bytes = {0};
    fst_shape shape;
    unsigned char *pixels = NULL;
    float *probability = fst_calloc((size_t)m->classes, sizeof *probability);
    int32_t answer;
    fst_status st = probability ? fst_file_read(path, (size_t)64 << 20, &bytes, err) : fst_fail_memory(err, 1);
    if (!st)
        st = fst_image_decode(&pixels, &shape, path, bytes.data, bytes.len, (int)m->config.input.dim[0], 0, err);
    if (!st && !fst_shape_fits(&shape, &m->config.input))
        st = fst_fail(err, FST_E_MISMATCH, "%s: the image is of another size than the model's samples", path);
    if (!st)
        st = fst_classifier_new(&c, m, 1, 1, err);
    if (!st)
        st = fst_classifier_run(c, path, FST_U8, pixels, 1, probability, err);
    if (!st) {
        fst_predict(probability, 1, m->classes, &answer);
        printf("class %d", answer);
        if (m->class_names)
            printf(" (%s)", m->class_names[answer]);
        printf(", probability %.4f\n", (double)probability[answer]);
    }
    fst_classifier_free(c);
    fst_free(pixels);
    fst_buf_release(&bytes);
    fst_free(probability);
    return st;
}

int main(int argc, char **argv)
{
    fst_model model;
    fst_error err = {0};
    if (argc != 3) {
        fprintf(stderr, "usage: classify MODEL IMAGE\n");
        return 2;
    }
    fst_status st = fst_model_load(&model, argv[1], &err);
    if (!st) {
        st = classify(&model, argv[2], &err);
        fst_model_release(&model);
    }
    if (st)
        fprintf(stderr, "classify: %s\n", err.message);
    return st != FST_OK;
}
