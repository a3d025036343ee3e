//! Threads that fill outputs side by side: the outputs are cut into disjoint parts first, so no kernel shares a `&mut`.

use crate::Machine;
use std::ops::Range;

/// Something that can be cut after its first `items` items.
pub(crate) trait Parts: Send + Sized {
    fn cut(self, items: usize) -> (Self, Self);
}

/// A slice whose items are rows of `width` elements; the last row may be short.
pub(crate) struct Rows<'a, T> {
    slice: &'a mut [T],
    width: usize,
}

impl<'a, T> Rows<'a, T> {
    pub fn new(slice: &'a mut [T], width: usize) -> Self {
        Self { slice, width }
    }
    /// All elements of this part.
    pub fn all(self) -> &'a mut [T] {
        self.slice
    }
}

impl<T: Send> Parts for Rows<'_, T> {
    fn cut(self, items: usize) -> (Self, Self) {
        let at = (items * self.width).min(self.slice.len());
        let (mine, others) = self.slice.split_at_mut(at);
        (Self::new(mine, self.width), Self::new(others, self.width))
    }
}

impl<A: Parts, B: Parts> Parts for (A, B) {
    fn cut(self, items: usize) -> (Self, Self) {
        let ((a, rest_a), (b, rest_b)) = (self.0.cut(items), self.1.cut(items));
        ((a, b), (rest_a, rest_b))
    }
}

impl Machine {
    /// [`Machine::split`] for outputs: `work` gets a range of items and the part of `outputs` that holds them.
    pub(crate) fn split_parts<P: Parts>(
        &self,
        items: usize,
        grain: usize,
        outputs: P,
        work: impl Fn(Range<usize>, P) + Sync,
    ) {
        let parts = self.threads().min(items / grain.max(1)).max(1);
        if parts == 1 {
            return work(0..items, outputs);
        }
        let work = &work;
        rayon::in_place_scope(|scope| {
            let (mut from, mut rest) = (0, outputs);
            for part in 1..parts {
                let to = items * part / parts;
                let (mine, others) = rest.cut(to - from);
                scope.spawn(move |_| work(from..to, mine));
                (from, rest) = (to, others);
            }
            work(from..items, rest);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    #[test]
    fn every_item_is_filled_once_whatever_the_threads() {
        for threads in 1..5 {
            let m = Machine::forced(Path::Scalar, threads).unwrap();
            for items in 0..20usize {
                let (mut a, mut b) = (vec![0; (3 * items).saturating_sub(1)], vec![0; items]);
                m.split_parts(items, 2, (Rows::new(&mut a, 3), Rows::new(&mut b, 1)), |range, (a, b)| {
                    let (a, b) = (a.all(), b.all());
                    assert_eq!(b.len(), range.len());
                    for (i, a) in a.iter_mut().enumerate() {
                        *a += range.start + i / 3;
                    }
                    for (i, b) in range.clone().zip(b) {
                        *b += i;
                    }
                });
                assert!(a.iter().enumerate().all(|(i, &a)| a == i / 3));
                assert!(b.iter().enumerate().all(|(i, &b)| b == i));
            }
        }
    }
}
