//! For tests: a corpus of files, and inputs made from them by small changes. Every input that once broke something is
//! kept as a file of `tests/corpus`, and tried first.
//! Must not know what is tested. `PGHERD_FUZZ=100 cargo test --lib` tries a hundred times as many.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// One small change.
#[derive(Debug, Clone)]
enum Change {
    /// A bit is flipped.
    Flip(Index, u8),
    /// A byte is another of its own kind: a digit, a letter.
    Alike(Index, u8),
    /// A byte that matters to somebody is put in.
    Insert(Index, u8),
    /// Some bytes are left out.
    Delete(Index, u8),
    /// Some bytes are there twice.
    Double(Index, u8),
    /// It ends here.
    Cut(Index),
    /// From here on it is another input.
    Splice(Index, Index, Index),
}

/// Bytes at which text or messages change their meaning.
const SPECIAL: &[u8] = b"\0\x01\x7f\x80\xff'\"$\\;-/*()[]{}:.,=<>|&@! \n\tEUXBNeuxbn0159QPSDZ";

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        4 => (at(), any::<u8>()).prop_map(|(at, n)| Change::Alike(at, n)),
        3 => (at(), proptest::sample::select(SPECIAL)).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => (at(), 1..9u8).prop_map(|(at, n)| Change::Delete(at, n)),
        1 => (at(), 1..33u8).prop_map(|(at, n)| Change::Double(at, n)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change, corpus: &[Vec<u8>]) {
    let place = |at: &Index| at.index(bytes.len() + 1);
    let some = |at: usize, n: u8| at..(at + usize::from(n)).min(bytes.len());
    match change {
        Change::Flip(at, bit) => {
            let at = place(at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Change::Alike(at, n) => {
            let at = place(at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = match *byte {
                    b'0'..=b'9' => b'0' + n % 10,
                    b'a'..=b'z' => b'a' + n % 26,
                    b'A'..=b'Z' => b'A' + n % 26,
                    other => other,
                };
            }
        }
        Change::Insert(at, byte) => bytes.insert(place(at), *byte),
        Change::Delete(at, n) => drop(bytes.drain(some(place(at), *n))),
        Change::Double(at, n) => {
            let range = some(place(at), *n);
            let again = bytes.get(range.clone()).unwrap_or_default().to_vec();
            bytes.splice(range.start..range.start, again);
        }
        Change::Cut(at) => bytes.truncate(place(at)),
        Change::Splice(at, other, from) => {
            let other = other.get(corpus);
            bytes.truncate(place(at));
            bytes.extend_from_slice(other.get(from.index(other.len() + 1)..).unwrap_or_default());
        }
    }
}

/// The files of `tests/corpus/NAME`, in the order of their names.
pub(crate) fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let files = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Tries every file of the corpus as it is, then `cases` inputs made of them. `check` is also given the file that an
/// input was made of, and some numbers to use as it likes.
pub(crate) fn fuzz(
    name: &str,
    cases: u32,
    check: impl Fn(&[u8], &[u8], &[Index]) -> Result<(), TestCaseError>,
) {
    let corpus = corpus(name);
    let numbers = || vec(any::<Index>(), 4);
    let times = std::env::var("PGHERD_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let config = Config { cases: cases * times, max_shrink_iters: 10_000, ..Config::default() };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..config });
    for input in &corpus {
        let tried = runner.run_one_of(numbers(), |numbers| check(input, input, &numbers));
        tried.unwrap_or_else(|e| panic!("{e}\ncorpus/{name}: {}", input.escape_ascii()));
    }
    let inputs = (any::<Index>(), vec(change(), 1..6), numbers());
    let made = |base: &Index, changes: &[Change]| {
        let base = base.get(&corpus);
        let mut input = base.clone();
        changes.iter().for_each(|change| apply(&mut input, change, &corpus));
        (base, input)
    };
    let outcome = runner.run(&inputs, |(base, changes, numbers)| {
        let (base, input) = made(&base, &changes);
        check(base, &input, &numbers).map_err(|e| match e {
            TestCaseError::Fail(why) => TestCaseError::fail(format!(
                "{why}\nkeep it in tests/corpus/{name}: {}",
                input.escape_ascii()
            )),
            TestCaseError::Reject(why) => TestCaseError::Reject(why),
        })
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

trait RunOne {
    fn run_one_of<S: Strategy>(
        &mut self,
        strategy: S,
        test: impl Fn(S::Value) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError>;
}

impl RunOne for TestRunner {
    fn run_one_of<S: Strategy>(
        &mut self,
        strategy: S,
        test: impl Fn(S::Value) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        use proptest::strategy::ValueTree as _;
        for _ in 0..4 {
            let value = strategy.new_tree(self).unwrap().current();
            test(value)?;
        }
        Ok(())
    }
}

/// Cuts `bytes` into pieces at the places that `numbers` say.
pub(crate) fn pieces<'a>(bytes: &'a [u8], numbers: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = numbers.iter().map(|n| n.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    let mut pieces = Vec::new();
    for cut in cuts {
        pieces.push(bytes.get(from..cut).unwrap_or_default());
        from = cut;
    }
    pieces
}
