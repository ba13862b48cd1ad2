use super::bytes::Bytes;
use super::crash::{CrashReport, Dice, Fate};

/// Power keeps or loses a write by sectors of this size.
pub(super) const SECTOR: usize = 512;
/// A file with more unsynced operations than this has its oldest half written back, as a kernel does in time.
const UNSYNCED_MAX: usize = 65_536;
/// What a file keeps of its undo log's memory once it is synced.
const UNDO_KEPT_BYTES_MAX: usize = 16 * 1024;
const UNSYNCED_KEPT_MAX: usize = 64;

/// The bytes of a file as they are now, and how to get back to those of the last sync.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Bytes,
    unsynced: Vec<Change>,
    /// What the changes overwrote or cut off, one after the other.
    undo: Vec<u8>,
    /// Changes since the file was made.
    changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    kind: Kind,
    offset: usize,
    len: usize,
    file_len_before: usize,
    undo_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    Truncate,
}

impl Body {
    /// A file with these bytes, all of them durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.part(0..self.len())
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Fills `into` from the file, with zeros beyond its end; whether the file was long enough.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        self.bytes.read(offset, into)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.changes += 1;
        let file_len_before = self.bytes.len();
        let undo_len = self.keep(offset..offset + data.len());
        self.note(Change { kind: Kind::Write, offset, len: data.len(), file_len_before, undo_len });
        self.bytes.write(offset, data);
    }

    /// Keeps what is to be overwritten or cut off; how much that is.
    fn keep(&mut self, range: std::ops::Range<usize>) -> usize {
        let len = range.end.min(self.len()).saturating_sub(range.start);
        let kept = self.undo.len();
        self.undo.resize(kept + len, 0);
        self.bytes.read(range.start, self.undo.get_mut(kept..).expect("it has grown"));
        len
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.changes += 1;
        let file_len_before = self.bytes.len();
        let undo_len = self.keep(len..file_len_before);
        self.note(Change { kind: Kind::Truncate, offset: len, len: 0, file_len_before, undo_len });
        self.bytes.resize(len);
    }

    /// All that was written is durable from now on.
    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.unsynced.shrink_to(UNSYNCED_KEPT_MAX);
        self.undo.clear();
        self.undo.shrink_to(UNDO_KEPT_BYTES_MAX);
    }

    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) const fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    pub(super) fn flip(&mut self, bit: u64) -> bool {
        usize::try_from(bit).is_ok_and(|bit| self.bytes.flip(bit))
    }

    /// Decides of each unsynced change whether it outlives the loss of power.
    pub(super) fn settle(&mut self, dice: &mut Dice<'_>, report: &mut CrashReport) {
        let changes = std::mem::take(&mut self.unsynced);
        let fates: Vec<Fate> = changes.iter().map(|_change| dice.fate()).collect();
        let written: Vec<Vec<u8>> = changes.iter().rev().map(|change| self.revert(*change)).collect();
        for ((change, fate), written) in changes.iter().zip(fates).zip(written.into_iter().rev()) {
            let fate = self.redo(*change, fate, &written, dice);
            report.count(fate);
        }
        self.sync();
    }

    /// Takes the last change back; what it had written.
    fn revert(&mut self, change: Change) -> Vec<u8> {
        let written = self.bytes.part(change.offset..change.offset + change.len);
        let undo = self.undo.split_off(self.undo.len() - change.undo_len);
        self.bytes.resize(change.file_len_before);
        self.bytes.write(change.offset.min(change.file_len_before), &undo);
        written
    }

    fn redo(&mut self, change: Change, fate: Fate, written: &[u8], dice: &mut Dice<'_>) -> Fate {
        match (fate, change.kind) {
            (Fate::Lost, _) => Fate::Lost,
            (Fate::Kept, Kind::Write) => {
                self.bytes.write(change.offset, written);
                Fate::Kept
            }
            (Fate::Torn, Kind::Write) => {
                self.redo_sectors(change.offset, written, dice);
                Fate::Torn
            }
            (Fate::Torn, Kind::Truncate) if dice.coin() => Fate::Lost,
            (Fate::Kept | Fate::Torn, Kind::Truncate) => {
                self.bytes.resize(change.offset);
                Fate::Kept
            }
        }
    }

    fn redo_sectors(&mut self, offset: usize, written: &[u8], dice: &mut Dice<'_>) {
        let (mut offset, mut rest) = (offset, written);
        while !rest.is_empty() {
            let (sector, after) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
            if dice.coin() {
                self.bytes.write(offset, sector);
            }
            offset += sector.len();
            rest = after;
        }
    }

    fn note(&mut self, change: Change) {
        if self.unsynced.len() >= UNSYNCED_MAX {
            let written_back: usize =
                self.unsynced.drain(..UNSYNCED_MAX / 2).map(|change| change.undo_len).sum();
            self.undo.drain(..written_back);
        }
        self.unsynced.push(change);
    }
}
