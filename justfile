# Short names for what .ci/ does; `just` alone lists them. Nothing needs just: every recipe is one
# command.

# List the recipes.
default:
    @just --list

# Everything that a change must pass; CI runs exactly this.
check:
    .ci/run

# The tests; arguments go to the runner, for example `just test -p strongroom-repo prune`.
test *ARGS:
    .ci/test {{ARGS}}

# The documentation of all crates, warnings denied.
doc *ARGS:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps {{ARGS}}

# Licences, bans and sources of all dependencies.
deny:
    PATH="$PATH:$PWD/target/ci/tools/bin" cargo deny --offline check bans licenses sources

# Build, back up, restore and compare real files in a temporary folder.
quickstart:
    .ci/quickstart

# Fuzz one target with RUNS inputs (needs cargo-fuzz); fails where it ends before.
fuzz TARGET RUNS="1000000":
    .ci/fuzz {{TARGET}} {{RUNS}}

# Write a target and a manifest entry for every fuzz body in the crates.
fuzz-targets:
    .ci/fuzz-targets

# The micro benchmarks.
bench *ARGS:
    cargo bench --package strongroom-benches {{ARGS}}

# The random tests with many more cases than in a normal run, simulations, every bit of a small
# repository and bits all over full-size packs, then all crashes and all failing calls, then kills
# of the built program.
soak CASES="20000" SEEDS="100000": && soak-crashes soak-kills
    PROPTEST_CASES={{CASES}} cargo test --release --workspace --no-fail-fast
    cargo run --release --package strongroom-tests --bin soak -- all {{SEEDS}}

# All crashes and failing calls of every command that writes, or of those with WORD in their name; of
# the images of each, dealt out in PARTS, only PART, from 0.
soak-crashes SEED="1" ROUNDS="1" WORD="" PART="0" PARTS="1":
    cargo run --release --package strongroom-tests --example crashes -- \
        {{SEED}} {{ROUNDS}} "{{WORD}}" {{PART}} {{PARTS}}

# So many kills of backups and of prunes, each of which stores MIB, in a folder that is emptied first.
soak-kills BACKUPS="200" PRUNES="100" SEED="1" MIB="100" FOLDER="target/kills":
    cargo build --release --package strongroom
    cargo run --release --package strongroom-tests --example kills -- \
        target/release/strongroom {{FOLDER}} {{BACKUPS}} {{PRUNES}} {{SEED}} {{MIB}}

# A built program on a disk that fails at every operation of a DEED, `init`, `backup` or `prune`; as
# root. WHICH are `faults`, power `cuts` or `all`; of these, dealt out in PARTS, only PART, from 0.
soak-syscalls DEED="backup" WHICH="all" PART="0" PARTS="1":
    cargo build --release --package strongroom
    cargo run --release --package strongroom --example syscalls -- \
        target/release/strongroom {{DEED}} {{WHICH}} {{PART}} {{PARTS}}

# A sparse file of GB that holds DATA MiB, FILES empty ones in one folder and a tree of LEVELS, each
# saved, restored and saved again within limits of memory and growth, in a folder that is emptied first.
soak-scale GB="1000" DATA="1000" FILES="1000000" LEVELS="2000" FOLDER="target/scale":
    cargo build --release --package strongroom
    cargo run --release --package strongroom --example scale -- \
        target/release/strongroom {{FOLDER}} {{GB}} {{DATA}} {{FILES}} {{LEVELS}}

# Accept the changed transcripts, to be read in the diff before they are committed.
bless:
    INSTA_UPDATE=always .ci/test

# Make the frozen repository of a released format VERSION under tests/golden/.
golden VERSION:
    cargo run --release --package strongroom-tests --example golden -- {{VERSION}}
