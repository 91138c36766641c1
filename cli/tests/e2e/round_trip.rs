//! What is saved comes back, all of it.

use std::fs;

use crate::{
    runs::{id, is_root, save, well},
    sandbox::Sandbox,
    tree::{FROZEN, Thaw, assert_same, build_deep, build_everything, read, read_deep},
};

#[test]
fn a_tree_of_everything_comes_back_identical_and_saving_it_again_adds_nothing() {
    let sandbox = Sandbox::with_repository();
    let (from, to) = (sandbox.path("from"), sandbox.path("to/from"));
    let frozen = FROZEN
        .iter()
        .flat_map(|name| [from.join(name), to.join(name)]);
    let _thaw = Thaw(if is_root() {
        frozen.collect()
    } else {
        Vec::new()
    });
    fs::create_dir(&from).unwrap();
    build_everything(&from);
    let before = read(&from);
    let first = save(&sandbox, "from");
    assert_eq!(first["files_changed"], 0);
    assert_same(&before, &read(&from));
    let again = save(&sandbox, "from");
    assert_eq!(
        (&again["files_new"], &again["files_changed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(again["files_unmodified"], first["files_new"]);
    assert_eq!(again["data_added"], 0, "{again}");
    well(
        &sandbox,
        ["restore", &id(&again), "--target", "to", "--verify"],
    );
    assert_same(&before, &read(&to));
    let over = [
        "restore",
        &id(&first),
        "--target",
        "to",
        "--overwrite",
        "if-changed",
    ];
    well(&sandbox, over);
    assert_same(&before, &read(&to));
    well(&sandbox, ["check", "--read-data"]);
}

#[test]
fn files_deeper_than_any_path_can_name_come_back() {
    let sandbox = Sandbox::with_repository();
    build_deep(&sandbox.path("deep"));
    save(&sandbox, "deep");
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_eq!(read_deep(&sandbox.path("to/deep")), "down here");
    well(&sandbox, ["check", "--read-data"]);
}

#[test]
fn every_snapshot_keeps_the_state_of_its_own_time() {
    let sandbox = Sandbox::with_repository();
    let mut states = Vec::new();
    for generation in 0..4_u8 {
        sandbox.write("src/same", b"always the same");
        sandbox.write(
            "src/grows",
            &vec![generation; 50_000 * usize::from(generation)],
        );
        sandbox.write(format!("src/only{generation}"), &[generation]);
        if generation > 0 {
            fs::remove_file(sandbox.path(&format!("src/only{}", generation - 1))).unwrap();
        }
        states.push((id(&save(&sandbox, "src")), read(&sandbox.path("src"))));
    }
    for (at, (id, state)) in states.iter().enumerate() {
        let target = format!("to{at}");
        well(&sandbox, ["restore", id, "--target", &target]);
        assert_same(state, &read(&sandbox.path(&target).join("src")));
    }
}

#[test]
fn patterns_that_match_nothing_are_told() {
    let sandbox = Sandbox::empty();
    sandbox.write("src/a.txt", b"alpha\n");
    well(&sandbox, ["-q", "init"]);
    save(&sandbox, "src");
    let said = sandbox.run(["restore", "latest", "--target=to", "--include=b.txt"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("nothing in the snapshot matches"),
        "{said:?}"
    );
    let said = sandbox.run(["restore", "latest", "--target=to", "--include=a.txt", "-n"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert!(said.out.contains("would restore 1 file of 6 B"), "{said:?}");
}
