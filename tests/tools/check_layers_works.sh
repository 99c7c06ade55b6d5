#!/bin/bash
# tests/check_layers on small trees: one that keeps the rules, and one breach after the other.
set -u
# shellcheck source=tests/tools/expect.bash
. "$(dirname "$0")/expect.bash"
check=$FEDSTILL_SOURCE/tests/check_layers

tree() { # a good tree, new
    rm -rf "$scratch/tree"
    mkdir -p "$scratch"/tree/{src/{base,tensor,nn/onednn,data,store},include/fedstill,cmd/fedstill,tests}
    cd "$scratch/tree" || exit 1
    for layer in base tensor nn data store; do
        echo "/* $layer */" >include/fedstill/$layer.h
        printf '#include <stdio.h>\n#include "fedstill/%s.h"\n' $layer >src/$layer/file.c
    done
    printf '#include <dnnl.h>\n#include "own.h"\n' >src/nn/onednn/backend.c
    echo '/* own */' >src/nn/own.h
    printf '#include "fedstill/nn.h"\n#include "fedstill/store.h"\n#include "cmd.h"\n' >cmd/fedstill/main.c
    echo '/* cmd */' >cmd/fedstill/cmd.h
}
# breach TEXT: this tree is refused, and TEXT is among the reasons; then a new tree.
breach() {
    expect 1 "$check" "$scratch/tree"
    said "$1"
    said "check_layers: 1 breaches"
    tree
}

tree
echo '#include "fedstill/base.h"' >>src/nn/file.c # through tensor
expect 0 "$check" "$scratch/tree"
tree

echo '#include "fedstill/nn.h"' >>src/data/file.c
breach 'src/data/file.c:3: src/data may not include "fedstill/nn.h"'
echo '  #  include  "fedstill/tensor.h"' >>src/base/file.c
breach 'src/base/file.c:3: src/base may not include "fedstill/tensor.h"'
echo '#include <fedstill/data.h>' >>src/store/file.c
breach 'src/store/file.c:3: src/store may not include "fedstill/data.h"'
echo '#include "fedstill/nn.h"' >>include/fedstill/tensor.h
breach 'include/fedstill/tensor.h:2: include/fedstill/tensor.h may not include "fedstill/nn.h"'
echo '#include "own.h"' >>src/data/file.c
breach 'src/data/file.c:3: "own.h" is no header of src/data'
echo '#include "../nn/own.h"' >>src/data/file.c
breach 'src/data/file.c:3: "../nn/own.h": includes do not reach into other folders'
echo '#include "own.h"' >>cmd/fedstill/main.c
breach 'cmd/fedstill/main.c:4: "own.h" is no header of cmd/fedstill'
echo '#include "fedstill/other.h"' >>cmd/fedstill/main.c
breach 'cmd/fedstill/main.c:4: "fedstill/other.h" belongs to no layer'
echo '/* other */' >include/fedstill/other.h
breach 'include/fedstill/other.h: belongs to no layer'
mkdir src/other
breach 'src/other: a layer that tests/check_layers does not know'
echo '#include <oneapi/dnnl/dnnl_types.h>' >>src/nn/file.c
breach 'src/nn/file.c:3:oneapi/dnnl/dnnl_types.h: only the oneDNN backend names its headers'
yes '/**/' | head -n 799 >src/base/long.c
expect 0 "$check" "$scratch/tree"
echo '/**/' >>src/base/long.c
breach 'src/base/long.c: 800 lines'
printf 'int x; \n' >>src/base/file.c
breach 'src/base/file.c:3: blanks at the end of the line'
printf '/* FIX%s: later */\n' ME >>src/base/file.c
breach 'src/base/file.c:3: a marker of unfinished work'
if ctags --version 2>/dev/null | grep -q Universal; then
    { echo 'int f(void)'; echo '{'; yes '    ;' | head -n 88; echo '}'; } >src/base/file.c
    breach 'src/base/file.c:1: f: a function of 91 lines'
fi
finish
