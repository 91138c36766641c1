//! Random sequences of calls, against the store in memory.

use proptest::prelude::*;

use super::*;

/// One step of a random sequence; the number chooses among few names, so that they collide.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    Replace(u8, Vec<u8>),
    Delete(u8),
    ReadAt(u8, u64, usize),
    ReadAll(u8, u64),
    Barrier(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        4 => (0..4_u8, bytes()).prop_map(|(name, bytes)| Step::Put(name, bytes)),
        1 => (0..4_u8, bytes()).prop_map(|(name, bytes)| Step::Replace(name, bytes)),
        2 => (0..4_u8).prop_map(Step::Delete),
        3 => (0..4_u8, 0..25_u64, 0..25_usize)
            .prop_map(|(name, at, len)| Step::ReadAt(name, at, len)),
        3 => (0..4_u8, 0..25_u64).prop_map(|(name, limit)| Step::ReadAll(name, limit)),
        1 => (0..4_u8).prop_map(Step::Barrier),
        1 => Just(Step::Reopen),
    ]
}

/// What a caller sees of a step.
fn seen(store: &dyn Backend, step: &Step) -> String {
    let name = |number: &u8| match number {
        0 | 1 => ObjectName::Log(u64::from(*number) + 1),
        number => ObjectName::Pack(PackId::new([*number; 32])),
    };
    match step {
        Step::Put(at, bytes) => {
            let put = store.put_if_absent(&name(at), &[bytes]);
            format!("{:?}", put.map_err(|error| error.kind))
        }
        Step::Replace(at, bytes) => {
            format!("{:?}", kind_of(store.replace_verified(&name(at), bytes)))
        }
        Step::Delete(at) => format!("{:?}", kind_of(store.delete(&name(at)))),
        Step::ReadAt(at, offset, len) => {
            let mut out = vec![0; *len];
            let read = store.read_at(&name(at), *offset, &mut out);
            format!("{:?}", read.map(|()| out).map_err(|error| error.kind))
        }
        Step::ReadAll(at, limit) => {
            let read = store.read_all(&name(at), *limit);
            format!("{:?}", read.map_err(|error| error.kind))
        }
        Step::Barrier(at) => format!("{:?}", kind_of(store.barrier(name(at).kind()))),
        Step::Reopen => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_folder_and_a_map_answer_every_sequence_of_calls_alike(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (_dir, mut store) = fresh();
        let model = MemBackend::new();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                store = reopen(&store, OTHER_RUN);
            }
            prop_assert_eq!(seen(&store, step), seen(&model, step), "{:?}", step);
        }
        for kind in ObjectKind::ALL {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            store.list(kind, &mut |name, len| left.push((name, len))).unwrap();
            model.list(kind, &mut |name, len| right.push((name, len))).unwrap();
            left.sort();
            right.sort();
            prop_assert_eq!(left, right);
        }
        prop_assert_eq!(temps(&store), Vec::<String>::new());
    }
}
