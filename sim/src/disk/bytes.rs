/// Bytes that grow without being moved: files grow by pages, and there are thousands of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    /// What lies beyond the end is zero.
    chunks: Vec<Box<[u8; CHUNK]>>,
    len: usize,
}

/// A page, and most frames of a WAL, lie in one of these or in two.
const CHUNK: usize = 8_192;

impl Bytes {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Fills `into` from an offset on, with zeros beyond the end; whether there were enough.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let there = self.len.saturating_sub(offset).min(into.len());
        let (filled, missing) = into.split_at_mut(there);
        missing.fill(0);
        let is_enough = missing.is_empty();
        let (mut offset, mut rest) = (offset, filled);
        while !rest.is_empty() {
            let (within, chunk) = (offset % CHUNK, self.chunks.get(offset / CHUNK).expect("it lies within"));
            let (part, after) = rest.split_at_mut(rest.len().min(CHUNK - within));
            part.copy_from_slice(chunk.get(within..within + part.len()).expect("it lies within"));
            offset += part.len();
            rest = after;
        }
        is_enough
    }

    /// Those of a range, as far as there are any.
    pub(super) fn part(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let mut part = vec![0; range.end.min(self.len).saturating_sub(range.start)];
        self.read(range.start, &mut part);
        part
    }

    /// Writes `data` over what there is, which grows as far as needed.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.resize(self.len.max(offset + data.len()));
        let (mut offset, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (within, chunk) =
                (offset % CHUNK, self.chunks.get_mut(offset / CHUNK).expect("it has grown"));
            let (part, after) = rest.split_at(rest.len().min(CHUNK - within));
            chunk.get_mut(within..within + part.len()).expect("it lies within").copy_from_slice(part);
            offset += part.len();
            rest = after;
        }
    }

    /// Cuts off, or grows with zeros.
    pub(super) fn resize(&mut self, len: usize) {
        self.chunks.resize_with(len.div_ceil(CHUNK), || Box::new([0; CHUNK]));
        if len < self.len
            && let Some(last) = self.chunks.get_mut(len / CHUNK)
        {
            last.get_mut(len % CHUNK..).expect("it lies within").fill(0);
        }
        self.len = len;
    }

    pub(super) fn flip(&mut self, bit: usize) -> bool {
        let byte = bit / 8;
        if byte >= self.len {
            return false;
        }
        let byte = self.chunks.get_mut(byte / CHUNK).and_then(|chunk| chunk.get_mut(byte % CHUNK));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let mut ours = Self::default();
        ours.write(0, &bytes);
        ours
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, u8, usize),
        Resize(usize),
        Flip(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0..3 * CHUNK;
        prop_oneof![
            (at.clone(), any::<u8>(), at.clone())
                .prop_map(|(offset, byte, len)| Step::Write(offset, byte, len)),
            at.clone().prop_map(Step::Resize),
            (0..24 * CHUNK).prop_map(Step::Flip),
        ]
    }

    proptest! {
        #[test]
        fn they_are_like_a_vec(steps in proptest::collection::vec(step(), 1..20), from in 0..3 * CHUNK) {
            let (mut ours, mut plain) = (Bytes::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Write(offset, byte, len) => {
                        ours.write(offset, &vec![byte; len]);
                        if len > 0 && plain.len() < offset + len {
                            plain.resize(offset + len, 0);
                        }
                        plain.iter_mut().skip(offset).take(len).for_each(|old| *old = byte);
                    }
                    Step::Resize(len) => {
                        ours.resize(len);
                        plain.resize(len, 0);
                    }
                    Step::Flip(bit) => {
                        prop_assert_eq!(ours.flip(bit), bit / 8 < plain.len());
                        plain.iter_mut().skip(bit / 8).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
                    }
                }
                prop_assert_eq!(ours.len(), plain.len());
                prop_assert_eq!(&ours.part(0..usize::MAX), &plain);
                let mut some = [7; 100];
                let enough = ours.read(from, &mut some);
                let there = plain.iter().skip(from).take(100);
                prop_assert_eq!(enough, there.len() == 100);
                prop_assert!(some.iter().eq(there.chain(&[0; 100]).take(100)));
            }
        }
    }
}
