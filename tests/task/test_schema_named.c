/* Maps with free keys: each entry's table follows from its kind, which is its name where none is given; reading,
 * errors, writing back, canonical JSON, finding, conditions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "schema.h"

struct cat {
    int64_t lives;
};
struct dog {
    char *trick;
    double age;
};
struct house {
    bool door;
    fst__named *pets;
    size_t pet_count;
};
static const fst__field cat_fields[] = {FST__F_INT(struct cat, lives, 0, 9, "9", "how many are left")};
static const fst__field dog_fields[] = {
    FST__F_STRING(struct dog, trick, NULL, "what it can do"),
    FST__F_DOUBLE(struct dog, age, 0, 30, "1", "in years", .when = {FST__WITH_ANY("trick")}),
};
static const fst__schema cat_schema = FST__SCHEMA(struct cat, cat_fields);
static const fst__schema dog_schema = FST__SCHEMA(struct dog, dog_fields);

static bool choice(size_t i, fst__choice *out)
{
    const fst__choice all[] = {{"cat", "purrs", &cat_schema}, {"dog", "barks", &dog_schema}};
    if (i < 2)
        *out = all[i];
    return i < 2;
}

static const fst__field house_fields[] = {
    FST__F_BOOL(struct house, door, "false", "for those who go out", .when = {FST__WITH_ANY("pets.cat")}),
    FST__F_NAMED(struct house, pets, pet_count, 3, choice, "who lives there", .required = true),
};
static const fst__schema house_schema = FST__SCHEMA(struct house, house_fields);

static void refused(const char *text, const char *message)
{
    struct house h;
    fst_error e = {0};
    assert_int_equal(fst__schema_load(&house_schema, "h", text, strlen(text), NULL, 0, &h, &e), FST_E_CONFIG);
    assert_string_equal(e.message, message);
}

static void read_text(struct house *h, const char *text, const char *set)
{
    fst_error e = {0};
    if (fst__schema_load(&house_schema, "h", text, strlen(text), &set, set ? 1 : 0, h, &e))
        fail_msg("%s", e.message);
}

static void reading(void **state)
{
    (void)state;
    struct house h;
    read_text(&h, "pets: {tom: {kind: cat, lives: 3}, dog: {trick: roll, age: 4}, cat: null}", "pets.tom.lives=2");
    assert_int_equal(h.pet_count, 2);
    assert_string_equal(h.pets[0].name, "tom");
    assert_int_equal(h.pets[0].choice, 0);
    assert_int_equal(((struct cat *)h.pets[0].object)->lives, 2);
    assert_string_equal(h.pets[1].name, "dog");
    assert_int_equal(h.pets[1].choice, 1);
    assert_string_equal(((struct dog *)h.pets[1].object)->trick, "roll");
    fst__schema_release(&house_schema, &h);
    read_text(&h, "pets: {}", "pets.tom.kind=cat"); /* an entry that only --set knows */
    assert_int_equal(h.pet_count, 1);
    assert_int_equal(((struct cat *)h.pets[0].object)->lives, 9);
    fst__schema_release(&house_schema, &h);
}

static void errors(void **state)
{
    (void)state;
    refused("pets: 3", "h:1:7: pets: \"3\" is not a map of maps");
    refused("pets: {cta: {}}",
            "h:1:8: pets.cta: unknown key; did you mean \"cat\"? accepted: cat, dog, or any name with a "
            "kind: {kind: cat, ...}");
    refused("pets: {tom: {kind: mouse}}", "h:1:20: pets.tom.kind: \"mouse\" is no kind; there are cat, dog");
    refused("pets: {tom: {kind: cat, trick: roll}}", "h:1:25: pets.tom.trick: unknown key; accepted: lives");
    refused("pets: {tom: {kind: cat, lives: 10}}", "h:1:32: pets.tom.lives: \"10\" is not a whole number from 0 to 9");
    refused("pets: {Tom: {kind: cat}}",
            "h:1:8: pets.Tom: a name is made of a-z, 0-9 and _ and begins with a letter, 40 at most");
    refused("pets: {cat: 9}", "h:1:13: pets.cat: \"9\" is not a map");
    refused("pets: {a: {kind: cat}, b: {kind: cat}, c: {kind: cat}, d: {kind: cat}}",
            "h:1:7: pets: has 4 entries, more than 3");
    /* conditions: on an entry of a kind, and within an entry */
    refused("door: true\npets: {rex: {kind: dog}}",
            "h:1:1: door: has no effect without pets.cat: set that too, or leave this out");
    refused("pets: {rex: {kind: dog, age: 2}}",
            "h:1:25: pets.rex.age: has no effect without trick: set that too, or leave this out");
}

static void writing(void **state)
{
    (void)state;
    static const char yaml[] =
        "door: true\npets:\n  tom:\n    kind: cat\n    lives: 3\n  dog:\n    trick: roll\n    age: 4\n";
    struct house h, again;
    fst_buf out = {0}, twice = {0};
    fst_error e = {0};
    const fst__schema *table;
    const void *at;
    read_text(&h, "door: true\npets: {tom: {kind: cat, lives: 3}, dog: {trick: roll, age: 4}}", NULL);
    assert_int_equal(fst__schema_dump(&house_schema, &h, &out, &e), FST_OK);
    assert_string_equal(out.data, yaml);
    read_text(&again, out.data, NULL);
    assert_int_equal(fst__schema_dump(&house_schema, &again, &twice, &e), FST_OK);
    assert_string_equal(twice.data, yaml);
    out.len = 0;
    assert_int_equal(fst__schema_json(&house_schema, &h, &out, &e), FST_OK);
    assert_string_equal(out.data, "{\"door\":true,\"pets\":{\"dog\":{\"age\":4,\"trick\":\"roll\"},"
                                  "\"tom\":{\"kind\":\"cat\",\"lives\":3}}}");
    assert_int_equal(fst__schema_find(&house_schema, &h, "pets.tom", &table, &at, &e), FST_OK);
    assert_ptr_equal(table, &cat_schema);
    assert_ptr_equal(at, h.pets[0].object);
    assert_int_equal(fst__schema_find(&house_schema, &h, "pets.rex", &table, &at, &e), FST_E_ARGUMENT);
    assert_int_equal(fst__schema_verify(&house_schema, &e), FST_OK);
    fst_buf_release(&out);
    fst_buf_release(&twice);
    fst__schema_release(&house_schema, &h);
    fst__schema_release(&house_schema, &again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reading), cmocka_unit_test(errors), cmocka_unit_test(writing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
