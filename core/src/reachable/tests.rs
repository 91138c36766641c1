//! Trees that only a holder of the keys can make, and what a walk says of each.

use std::sync::Mutex;

use strongroom_repo::backend::MemBackend;

use super::*;
use crate::{
    fixture::{create, dir_entry, file_entry, leaf, store_pages},
    format::tree::{Child, Page as StoredPage},
};

/// Keeps all problems.
#[derive(Default)]
struct Strict(Mutex<Vec<TreeProblem>>);

impl Visitor for Strict {
    fn problem(&self, problem: TreeProblem) {
        self.0.lock().unwrap().push(problem);
    }

    fn checks(&self) -> bool {
        true
    }
}

/// What is wrong with a tree, by path.
fn problems(repo: &Repository, tree: BlobId) -> Vec<TreeProblem> {
    let root = Root {
        snapshot: SnapshotId::new([1; 32]),
        tree,
    };
    let (strict, reachable) = (Strict::default(), Reachable::new());
    let never = AtomicBool::new(false);
    walk(repo, &[root], 2, &reachable, &strict, &never).unwrap();
    let mut problems = strict.0.into_inner().unwrap();
    assert!(problems.iter().all(|found| found.snapshot == root.snapshot));
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    problems
}

#[test]
fn each_fault_of_a_tree_is_told_with_its_place() {
    let repo = create(&MemBackend::new());
    let id = repo.blob_id(BlobKind::Data, b"12345");
    let five = Extent::Data { len: 5, id };
    let [lost, page] = [3, 4].map(|byte| BlobId::new([byte; 32]));
    let root = store_pages(&repo, |store| {
        store(leaf(&[
            file_entry(b"good", 5, vec![five]),
            file_entry(b"len", 6, vec![five]),
            file_entry(b"lost", 5, vec![Extent::Data { len: 5, id: lost }]),
            dir_entry(b"page", page),
        ]))
    });
    let found = problems(&repo, root);
    let told: Vec<_> = found
        .iter()
        .map(|problem| (problem.path.as_slice(), &problem.what))
        .collect();
    assert!(
        matches!(
            told.as_slice(),
            [
                (b"/len", TreeFault::Length { size: 6, found: 5 }),
                (b"/lost", TreeFault::Missing { blob: missing }),
                (
                    b"/page",
                    TreeFault::Page {
                        blob: unread,
                        source: Error::Repo(RepoError::MissingBlob { .. })
                    }
                ),
            ] if *missing == lost && *unread == page
        ),
        "{told:?}"
    );
}

#[test]
fn a_blob_that_is_not_as_long_as_its_tree_says_is_told() {
    let repo = create(&MemBackend::new());
    let id = repo.blob_id(BlobKind::Data, b"12345");
    let root = store_pages(&repo, |store| {
        store(leaf(&[file_entry(
            b"a",
            4,
            vec![Extent::Data { len: 4, id }],
        )]))
    });
    let found = problems(&repo, root);
    assert!(
        matches!(
            found.as_slice(),
            [TreeProblem {
                what: TreeFault::BlobLength {
                    blob,
                    expected: 4,
                    found: 5
                },
                ..
            }] if *blob == id
        ),
        "{found:?}"
    );
}

#[test]
fn pages_of_one_directory_are_not_followed_for_ever() {
    let repo = create(&MemBackend::new());
    let root = store_pages(&repo, |store| {
        let mut page = store(leaf(&[file_entry(b"a", 0, vec![])]));
        for _ in 0..=MAX_LEVEL {
            let last = b"a".to_vec();
            page = store(StoredPage::Inner(vec![Child { last, id: page }]));
        }
        page
    });
    let found = problems(&repo, root);
    assert!(
        matches!(
            found.as_slice(),
            [TreeProblem {
                what: TreeFault::TooDeep,
                ..
            }]
        ),
        "{found:?}"
    );
}
