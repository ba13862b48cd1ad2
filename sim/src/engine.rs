//! What an engine that is not ours needs so that nothing of the machine's own time and randomness reaches it.

use std::time::Duration;

use madsim::Config;
use madsim::runtime::Runtime;

/// So that no instant lies before the machine's own beginning when something is subtracted from it.
const BEGINS_AT: Duration = Duration::from_secs(1 << 20);

/// Runs something on a thread of its own, where the standard library's clocks stand still but for [`advance`], and
/// where its hash maps are ordered by the seed.
pub(crate) fn with_simulated_clock<R: Send>(seed: u64, run: impl FnOnce() -> R + Send) -> R {
    on_its_own_thread(|| {
        Runtime::with_seed_and_config(seed, Config::default()).block_on(async {
            madsim::time::advance(BEGINS_AT);
            run()
        })
    })
}

/// Hash maps of the standard library get their order from the thread they are made on, once for all.
pub(crate) fn on_its_own_thread<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    #[expect(clippy::disallowed_methods, reason = "there is no other thread beside it: the caller waits")]
    let done = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run);
        thread.expect("the machine has room for a thread").join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// As much as the main thread has.
const STACK_BYTES: usize = 8 << 20;

/// Moves the clocks on.
pub(crate) fn advance(time: Duration) {
    madsim::time::advance(time);
}
