/* Folders of images: which folders are splits and classes, which files are read, and what is said about the others. */
#define _GNU_SOURCE
#include <unistd.h>

#include "files.h"

static char said[2000];

static void listen(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    if (level == FST_LOG_WARN)
        snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", message);
}

/* An image of one pixel, whose value tells which one it is. */
static void put(const char *name, int value)
{
    put_png(name, 1, 1, 1, &(unsigned char){(unsigned char)value});
}

static fst_status open_folder(fst_source **s, const char *name, const char *split, fst_error *err)
{
    said[0] = 0;
    fst_log_set(listen, NULL);
    fst_source_spec spec = {.format = "folder", .path = in_work(name), .split = split, .image_channels = 1};
    fst_status st = fst_source_open(s, &spec, err);
    fst_log_set(NULL, NULL);
    return st;
}

/* The split's pixels and labels, as "7:0 8:1", and the names of classes. */
static void check(const char *name, const char *split, const char *samples, const char *classes)
{
    fst_source *s = NULL;
    char got[200] = "", names[200] = "";
    assert_ok(open_folder(&s, name, split, err));
    for (size_t i = 0; i < s->count; i++) {
        unsigned char pixel;
        assert_ok(s->v->get(s, i, &pixel, err));
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d:%d", i ? " " : "", pixel, s->labels[i]);
    }
    for (int c = 0; c < s->classes; c++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", c ? " " : "", s->class_names[c]);
    assert_string_equal(got, samples);
    assert_string_equal(names, classes);
    fst_source_close(s);
}

static void check_said(const char *text)
{
    if (!strstr(said, text))
        fail_msg("\"%s\" does not say \"%s\"", said, text);
}

/* The order is that of the folders' whole paths, then of the files, as ImageFolder has it. */
static void folders_in_classes_belong_to_them(void **state)
{
    (void)state;
    put("nested/cat/2.png", 1);
    put("nested/cat/a/1.png", 2);
    put("nested/cat/a-b/0.png", 3);
    put("nested/cat/a/deep/0.png", 4);
    put("nested/dog/day0/0.png", 5);
    check("nested", NULL, "1:0 2:0 3:0 4:0 5:1", "cat dog");
    assert_string_equal(said, "");
}

/* As ImageFolder reads them; but who lays out a class so means splits. */
static void splits_in_classes_are_told(void **state)
{
    (void)state;
    put("inside/cat/train/0.png", 1);
    put("inside/cat/test/0.png", 2);
    put("inside/dog/train/0.png", 3);
    check("inside", NULL, "2:0 1:0 3:1", "cat dog");
    check_said("the folders train and test (or val) of class cat are read as one");
    put("only/cat/train/0.png", 1);
    put("only/dog/0.png", 2);
    check("only", NULL, "1:0 2:1", "cat dog");
    assert_string_equal(said, "");
}

static void litter_is_no_class(void **state)
{
    static const char *const litter[] = {"__MACOSX/cat/._0.png", "@eaDir/0.png",   ".hidden/0.png",
                                         "cat/.DS_Store",        "cat/Thumbs.db",  "cat/desktop.ini",
                                         "cat/@eaDir/0.png",     "$RECYCLE.BIN/a", "lost+found/a"};
    (void)state;
    put("litter/cat/0.png", 1);
    put("litter/dog/0.png", 2);
    for (size_t i = 0; i < sizeof litter / sizeof *litter; i++) {
        char name[64];
        snprintf(name, sizeof name, "litter/%s", litter[i]);
        put_file(name, "x", 1);
    }
    check("litter", NULL, "1:0 2:1", "cat dog");
    assert_string_equal(said, "");
}

static void skipped_files_are_counted(void **state)
{
    (void)state;
    put("skip/ant/0.png", 1);
    put("skip/bee/0.png", 2);
    put_file("skip/bee/1.gif", "GIF89a", 6);
    put_file("skip/bee/1.tif", "II", 2);
    put("skip/loose.png", 3);
    put_file("skip/README.txt", "hello", 5);
    check("skip", NULL, "1:0 2:1", "ant bee");
    check_said("3 files are skipped (bee/1.gif, bee/1.tif, loose.png)");
    check("skip", NULL, "1:0 2:1", "ant bee");
    assert_string_equal(said, ""); /* once is enough */
}

static void empty_classes_are_refused(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put("empty/bee/0.png", 2);
    put_file("empty/ant/0.gif", "GIF89a", 6);
    assert_fails(open_folder(&s, "empty", NULL, err), FST_E_FORMAT, "1 of 2 class folders hold no image: ant");
    assert_fails(open_folder(&s, "empty", NULL, err), FST_E_FORMAT, "1 file is skipped (ant/0.gif)");
    fst_source_spec spec = {.format = "folder", .path = in_work("empty"), .limit = 1};
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "hold no image: ant");
    assert_null(s);
}

static void a_split_holds_classes(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put("named/apple/0.png", 1);
    put("named/train/0.png", 2); /* no folder in it: a class of that name */
    put("named/zebra/0.png", 3);
    check("named", NULL, "1:0 2:1 3:2", "apple train zebra");
    assert_fails(open_folder(&s, "named", "test", err), FST_E_ABSENT, "for instance test: 0.2");
    put("spelled/Training/a/0.png", 1);
    put("spelled/Training/b/0.png", 2);
    put("spelled/testing/b/0.png", 3);
    put("spelled/extra/c/0.png", 3);
    check("spelled", NULL, "1:0 2:1", "a b");
    check_said("Training holds the training samples, so what stands beside it is not read: extra");
    check("spelled", "test", "3:1", "a b");
    put("three/train/a/0.png", 1);
    put("three/train/b/0.png", 2);
    put("three/Val/b/0.png", 3);
    check("three", "test", "3:1", "a b"); /* there is no other */
    check("three", "val", "3:1", "a b");
    put("three/test/a/0.png", 4);
    check("three", "test", "4:0", "a b");
    check("three", "val", "3:1", "a b");
    assert_string_equal(said, "");
    assert_fails(open_folder(&s, "spelled", "val", err), FST_E_ABSENT, "a split val needs folders train and val");
    assert_fails(open_folder(&s, "named", "val", err), FST_E_ABSENT, "for instance validation: 0.2");
    put("twice/train/a/0.png", 1);
    put("twice/Train/a/0.png", 2);
    put("twice/val/a/0.png", 3);
    put("twice/test/0.png", 4); /* of no class */
    check("twice", NULL, "2:0", "a");
    check_said("Train holds the training samples, so what stands beside it is not read: test, train");
    put("untrained/test/a/0.png", 1);
    put("untrained/val/a/0.png", 1);
    assert_fails(open_folder(&s, "untrained", NULL, err), FST_E_IO, "a folder test with classes, but no train");
    assert_null(s);
}

static void one_folder_around_all_is_entered(void **state)
{
    (void)state;
    put("wrapped/set/train/a/0.png", 1);
    put("wrapped/set/train/b/0.png", 2);
    put("wrapped/set/test/a/0.png", 3);
    put_file("wrapped/__MACOSX/set/._x", "x", 1);
    check("wrapped", NULL, "1:0 2:1", "a b");
    check("wrapped", "test", "3:0", "a b");
    put("single/cat/0.png", 1); /* one class */
    put("single/cat/day1/0.png", 2);
    put("single/cat/day2/0.png", 3);
    check("single", NULL, "1:0 2:0 3:0", "cat");
    assert_string_equal(said, "");
    put("boxes/in/boxes/train/a/0.png", 1);
    put("boxes/in/boxes/train/b/0.png", 2);
    put("boxes/in/boxes/val/b/0.png", 3);
    check("boxes", NULL, "1:0 2:1", "a b");
    check("boxes", "test", "3:1", "a b");
}

/* All would be one class, and every model always right. */
static void classes_below_one_folder_are_told(void **state)
{
    char path[1200];
    (void)state;
    put("photos/images/cat/0.png", 1);
    put("photos/images/dog/0.png", 2);
    check("photos", NULL, "1:0 2:0", "images");
    snprintf(path, sizeof path, "folders of them (cat, dog): if these are the classes, the path is %s",
             in_work("photos/images"));
    check_said(path);
    put("deeper/a/b/cat/0.png", 1);
    put("deeper/a/b/dog/0.png", 2);
    put("deeper/a/b/fox/0.png", 2);
    check("deeper", NULL, "1:0 2:0 2:0", "a");
    snprintf(path, sizeof path, "(cat, dog, ...): if these are the classes, the path is %s", in_work("deeper/a/b"));
    check_said(path);
}

static void circles_are_refused(void **state)
{
    fst_source *s = NULL;
    char link[1100];
    (void)state;
    put("circle/a/0.png", 1);
    snprintf(link, sizeof link, "%s", in_work("circle/a/again"));
    assert_int_equal(symlink("../a", link), 0);
    assert_fails(open_folder(&s, "circle", NULL, err), FST_E_FORMAT, "a/again: a link to a folder that it is in");
    assert_null(s);
}

static void foreign_files_are_named(void **state)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    fst_source *s = NULL;
    (void)state;
    put("foreign/a/0.png", 1);
    put_file("foreign/a/1.png", lfs, sizeof lfs - 1);
    assert_fails(open_folder(&s, "foreign", NULL, err), FST_E_FORMAT, "1.png: a pointer of Git LFS");
    put_file("foreign/a/1.png", "", 0);
    assert_fails(open_folder(&s, "foreign", NULL, err), FST_E_FORMAT, "1.png: the file is empty");
    put_png("foreign/a/1.png", 1, 2, 1, "\1\2");
    assert_fails(open_folder(&s, "foreign", NULL, err), FST_E_MISMATCH, "1.png: 1 x 2 pixels");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_in_classes_belong_to_them),
        cmocka_unit_test(splits_in_classes_are_told),
        cmocka_unit_test(litter_is_no_class),
        cmocka_unit_test(skipped_files_are_counted),
        cmocka_unit_test(empty_classes_are_refused),
        cmocka_unit_test(a_split_holds_classes),
        cmocka_unit_test(one_folder_around_all_is_entered),
        cmocka_unit_test(classes_below_one_folder_are_told),
        cmocka_unit_test(circles_are_refused),
        cmocka_unit_test(foreign_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}
