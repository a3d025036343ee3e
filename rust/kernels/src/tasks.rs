//! Threads that take unequal pieces of work from one queue.

use crate::Machine;
use std::sync::Mutex;

impl Machine {
    /// Runs `work` on every task, each exactly once, on at most `threads` threads; tasks start in the given order.
    ///
    /// A task owns what it writes, so neither the order nor the number of threads can change a result.
    pub(crate) fn each<T: Send>(&self, tasks: Vec<T>, work: impl Fn(T) + Sync) {
        self.each_with(tasks, || (), |(), task| work(task));
    }

    /// [`Machine::each`] with something that a thread makes once and lends to each of its tasks: memory that is new in each would
    /// be cleared by the kernel page after page.
    pub(crate) fn each_with<T: Send, S>(
        &self,
        tasks: Vec<T>,
        make: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, T) + Sync,
    ) {
        let threads = self.threads().min(tasks.len());
        if threads <= 1 {
            let mut own = make();
            return tasks.into_iter().for_each(|task| work(&mut own, task));
        }
        let (queue, make, work) = (Mutex::new(tasks.into_iter()), &make, &work);
        // A poisoned lock means that another thread panicked inside `next`, which a vector's iterator cannot.
        let take = || queue.lock().ok().and_then(|mut tasks| tasks.next());
        let run = || {
            let mut own = make();
            while let Some(task) = take() {
                work(&mut own, task);
            }
        };
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| run());
            }
            // the caller would only wait
            run();
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::{Machine, Path};

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let m = Machine::forced(Path::Scalar, threads).unwrap();
            for count in 0..9 {
                let mut done = vec![0; count];
                m.each(done.iter_mut().enumerate().collect(), |(i, slot)| *slot += i + 1);
                assert!(done.iter().enumerate().all(|(i, &slot)| slot == i + 1));
            }
        }
    }
}
