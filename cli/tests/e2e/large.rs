//! What is large in one way only, in a size for every test run; see `scale` for what is demanded.
//! `just soak-scale` does the same in full size.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use crate::scale::{Limits, Tree, go};

/// What a run may take and add; the key alone takes 64 MiB.
const LIMITS: Limits = Limits {
    memory: 200 << 10,
    added: 400_000,
};

fn comes_back(tree: Tree) {
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    let folder = dir.path().join("scale");
    go(program, &folder, tree, LIMITS, &mut |run| {
        eprintln!("{run}");
    })
    .unwrap();
}

#[test]
fn a_sparse_file_comes_back_with_its_holes() {
    comes_back(Tree::Sparse {
        len: 100_000_000_000,
        data: 32 << 20,
    });
}

#[test]
fn a_folder_of_many_files_comes_back() {
    comes_back(Tree::Wide(5000));
}

#[test]
fn a_tree_deeper_than_a_path_can_be_long_comes_back() {
    comes_back(Tree::Deep(800));
}

#[test]
fn what_comes_back_otherwise_or_takes_too_much_is_noticed() {
    let sparse = Tree::Sparse {
        len: 1 << 30,
        data: 8 << 20,
    };
    for tree in [sparse, Tree::Wide(10), Tree::Deep(5)] {
        let dir = tempfile::tempdir().unwrap();
        let (saved, restored) = (dir.path().join("saved"), dir.path().join("restored"));
        tree.make(&saved).unwrap();
        tree.make(&restored).unwrap();
        tree.compare(&saved, &restored).unwrap();
        if let Tree::Sparse { .. } = tree {
            let file = File::options().write(true).open(restored.join("sparse"));
            file.unwrap().write_all_at(&[0; 2 << 20], 32 << 20).unwrap();
            tree.compare(&saved, &restored).unwrap_err();
        }
        tree.change(&restored).unwrap();
        tree.compare(&saved, &restored).unwrap_err();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom"));
    for limits in [
        Limits {
            memory: 1,
            ..LIMITS
        },
        Limits { added: 1, ..LIMITS },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("scale");
        go(program, &folder, Tree::Wide(1), limits, &mut |_| ()).unwrap_err();
    }
}
