/* The YAML tree: places, limits, encodings, and overrides that are refused. What the messages of wrong
 * YAML say is tested with the schema. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "yaml_tree.h"

/* "a: [[[[...]]]]" with that many lists. */
static fst_status nested(int depth, fst_error *err)
{
    fst__tree *tree;
    fst_buf b = {0};
    assert_int_equal(fst_buf_printf(&b, NULL, "_: "), FST_OK); /* comments are bound by the limits too */
    for (int i = 0; i < depth; i++)
        assert_int_equal(fst_buf_append(&b, "[", 1, NULL), FST_OK);
    for (int i = 0; i < depth; i++)
        assert_int_equal(fst_buf_append(&b, "]", 1, NULL), FST_OK);
    fst_status s = fst__tree_parse(&tree, "deep", b.data, b.len, err);
    if (!s)
        fst__tree_free(tree);
    fst_buf_release(&b);
    return s;
}

/* A list of that many numbers. */
static fst_status many(int count, fst_error *err)
{
    fst__tree *tree;
    fst_buf b = {0};
    assert_int_equal(fst_buf_append(&b, "[", 1, NULL), FST_OK);
    for (int i = 0; i < count; i++)
        assert_int_equal(fst_buf_append(&b, "1,", 2, NULL), FST_OK);
    assert_int_equal(fst_buf_append(&b, "]", 1, NULL), FST_OK);
    fst_status s = fst__tree_parse(&tree, "many", b.data, b.len, err);
    if (!s) {
        assert_int_equal(fst__tree_root(tree)->count, count);
        fst__tree_free(tree);
    }
    fst_buf_release(&b);
    return s;
}

static void test_limits(void **state)
{
    (void)state;
    fst_error err;
    fst__tree *tree;
    assert_int_equal(nested(31, &err), FST_OK); /* and the map around them */
    assert_int_equal(nested(32, &err), FST_E_LIMIT);
    assert_string_equal(err.message, "deep:1:35: more than 32 maps and lists inside each other");
    assert_int_equal(nested(5000, &err), FST_E_LIMIT);
    assert_int_equal(many(99999, &err), FST_OK); /* and the list itself */
    assert_int_equal(many(100000, &err), FST_E_LIMIT);
    assert_non_null(strstr(err.message, "more than 100000 keys and values"));
    size_t size = (1 << 20) + 1;
    char *blanks = malloc(size);
    assert_non_null(blanks);
    memset(blanks, ' ', size);
    memcpy(blanks, "{}", 2);
    assert_int_equal(fst__tree_parse(&tree, "big", blanks, size - 1, &err), FST_OK);
    fst__tree_free(tree);
    assert_int_equal(fst__tree_parse(&tree, "big", blanks, size, &err), FST_E_LIMIT);
    assert_string_equal(err.message, "big: 1048577 bytes, at most 1048576 are read");
    free(blanks);
    fst_buf tags = {0};
    for (int i = 0; i < 20000; i++)
        assert_int_equal(fst_buf_printf(&tags, NULL, "%%TAG !t%d! x\n", i), FST_OK);
    assert_int_equal(fst__tree_parse(&tree, "tags", tags.data, tags.len, &err), FST_E_LIMIT);
    assert_string_equal(err.message, "tags: more than 64 %TAG directives; leave them out");
    fst_buf_release(&tags);
}

static void test_encodings(void **state)
{
    (void)state;
    fst_error err;
    fst__tree *tree;
    assert_int_equal(fst__tree_parse(&tree, "marked", "\xef\xbb\xbf\xe4\xb8\xad", 6, &err), FST_OK);
    assert_string_equal(fst__tree_root(tree)->text, "\xe4\xb8\xad");
    fst__tree_free(tree);
    /* UTF-16 with its mark */
    assert_int_equal(fst__tree_parse(&tree, "wide", "\xff\xfe{\0}\0", 6, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "wide: not valid YAML: "));
}

static void test_nodes_know_their_place(void **state)
{
    (void)state;
    static const char text[] = "a: 1\nb:\n  - x\n  - 'null'\n  - ~\n_c: 5\n";
    fst_error err;
    fst__tree *tree;
    char where[100];
    assert_int_equal(fst__tree_parse(&tree, "f.yaml", text, sizeof text - 1, &err), FST_OK);
    const fst__node *root = fst__tree_root(tree), *b = fst__node_find(root, "b");
    assert_int_equal(root->kind, FST__MAP);
    assert_int_equal(root->count, 2);
    assert_null(fst__node_find(root, "_c"));
    assert_int_equal(b->kind, FST__LIST);
    assert_int_equal(b->count, 3);
    assert_string_equal(fst__node_where(b, true, where, sizeof where), "f.yaml:2:1");
    assert_string_equal(fst__node_where(b, false, where, sizeof where), "f.yaml:3:3");
    assert_string_equal(fst__node_where(b->last, true, where, sizeof where), "f.yaml:5:5");
    assert_true(b->first->next->quoted && !fst__node_is_null(b->first->next));
    assert_true(fst__node_is_null(b->last));
    assert_int_equal(fst__tree_set(tree, "b.1=y", &err), FST_OK);
    assert_string_equal(b->first->next->text, "y");
    assert_string_equal(fst__node_where(b->first->next, false, where, sizeof where), "--set b.1=y");
    fst__tree_free(tree);
    fst__tree_free(NULL);
}

/* A refused override leaves no trace. */
static void test_refused_override_changes_nothing(void **state)
{
    (void)state;
    const char *const bad[] = {"a.b.c=[", "l.5=1", "l.0.x=&a 1", "n..m=2", "x.y={a: 1, a: 2}"};
    fst_error err;
    fst__tree *tree;
    assert_int_equal(fst__tree_parse(&tree, "f", "{a: 1, l: [z]}", 14, &err), FST_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fst__tree_set(tree, bad[i], &err), FST_E_CONFIG);
    const fst__node *root = fst__tree_root(tree);
    assert_int_equal(root->count, 2);
    assert_string_equal(root->first->text, "1");
    assert_string_equal(root->last->first->text, "z");
    /* a path and its value share the limit of depth */
    char deep[80] = "";
    for (int i = 0; i < 31; i++)
        strcat(deep, "a.");
    strcat(deep, "a=[1]");
    assert_int_equal(fst__tree_set(tree, deep, &err), FST_E_LIMIT);
    assert_string_equal(root->first->text, "1");
    deep[63] = 0;
    strcat(deep, "=1");
    assert_int_equal(fst__tree_set(tree, deep, &err), FST_OK);
    assert_int_equal(root->first->kind, FST__MAP);
    assert_string_equal(root->first->was->text, "1");
    fst__tree_free(tree);
}

static void test_shown(void **state)
{
    (void)state;
    char out[16];
    assert_string_equal(fst__shown("plain", 12, out, sizeof out), "plain");
    assert_string_equal(fst__shown("a\nb\x1b[", 12, out, sizeof out), "a?b?[");
    assert_string_equal(fst__shown("\xff\xc2\x9b", 12, out, sizeof out), "??");
    assert_string_equal(fst__shown("0123456789abc", 12, out, sizeof out), "0123456789ab...");
    assert_string_equal(fst__shown("0123456789a\xe4\xb8\xad", 12, out, sizeof out), "0123456789a...");
}

static void test_environment_cannot_blow_up(void **state)
{
    (void)state;
    fst_error err;
    fst__tree *tree;
    fst_buf b = {0};
    char *big = malloc(100001);
    assert_non_null(big);
    memset(big, 'x', 100000);
    big[100000] = 0;
    setenv("FST_TEST_BIG", big, 1);
    for (int i = 0; i < 50; i++)
        assert_int_equal(fst_buf_printf(&b, NULL, "- ${FST_TEST_BIG}\n"), FST_OK);
    assert_int_equal(fst__tree_parse(&tree, "big", b.data, b.len, &err), FST_E_LIMIT);
    assert_string_equal(err.message, "big:42:3: the texts are longer than 4194304 bytes together");
    unsetenv("FST_TEST_BIG");
    fst_buf_release(&b);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_know_their_place),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_environment_cannot_blow_up),
        cmocka_unit_test(test_refused_override_changes_nothing),
        cmocka_unit_test(test_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
