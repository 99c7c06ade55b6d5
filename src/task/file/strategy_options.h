/* The strategies' options as fields of a task file. Their names, limits and help stand in the strategies' own tables
 * (fst_option); here they become fields, and what was read becomes settings again. */
#ifndef FST_TASK_STRATEGY_OPTIONS_H
#define FST_TASK_STRATEGY_OPTIONS_H

#include "fedstill/strategy.h"
#include "schema.h"

enum { FST__OPTIONS = 96, FST__STRATEGIES = 63 };

/* Room for every option that some strategy has, in the order of their fields. */
union fst__option_value {
    double number;
    int64_t whole;
    int choice;
    bool flag;
};
struct strategy_settings {
    union fst__option_value value[FST__OPTIONS];
};

/* The names of all strategies, NULL-terminated, in the order of fst_strategy_at; filled before main. */
extern const char *fst__strategy_names[FST__STRATEGIES + 1];

/* Appends fields to a table that has room for FST__OPTIONS more: one for each option of a strategy, and a map for each
 * word before a dot. `offset`: of struct strategy_settings. Returns how many. Called before main. */
size_t fst__strategy_fields(fst__field *out, size_t offset);
/* The settings of one strategy; returns how many. */
size_t fst__strategy_settings(const struct strategy_settings *s, const fst_strategy_ops *ops,
                              fst_setting out[FST_STRATEGY_OPTIONS]);
/* Appends what a stage's result depends on besides the fields that fst__schema_json writes: "gamma=1", a line each. */
FST_MUST fst_status fst__strategy_inputs(const struct strategy_settings *s, const fst_strategy_ops *ops, fst_buf *text,
                                         fst_error *err);
/* A table of all strategies in Markdown: what they do, what they need, what the server can learn. */
FST_MUST fst_status fst__strategy_reference(fst_buf *out, fst_error *err);
/* NULL, or the option that two strategies describe differently, for tests. */
const char *fst__strategy_options_clash(void);

#endif
