use super::crash::{CrashReport, Dice, Fate};

/// Power keeps or loses a write by sectors of this size.
pub(super) const SECTOR: usize = 512;
/// A file with more unsynced operations than this has its oldest half written back, as a kernel does in time.
const UNSYNCED_MAX: usize = 65_536;
/// What a file keeps of its undo log's memory once it is synced.
const UNDO_KEPT_BYTES_MAX: usize = 16 * 1024;
const UNSYNCED_KEPT_MAX: usize = 64;
const GROWTH_BYTES_MIN: usize = 4096;

/// The bytes of a file as they are now, and how to get back to those of the last sync.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
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
        Self { bytes, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Fills `into` from the file, with zeros beyond its end; whether the file was long enough.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        read(&self.bytes, offset, into)
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.changes += 1;
        let file_len_before = self.bytes.len();
        let overwritten =
            self.bytes.get(offset..(offset + data.len()).min(file_len_before)).unwrap_or_default();
        self.undo.extend_from_slice(overwritten);
        let undo_len = overwritten.len();
        self.note(Change { kind: Kind::Write, offset, len: data.len(), file_len_before, undo_len });
        put(&mut self.bytes, offset, data);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.changes += 1;
        let file_len_before = self.bytes.len();
        let cut_off = self.bytes.get(len..).unwrap_or_default();
        self.undo.extend_from_slice(cut_off);
        let undo_len = cut_off.len();
        self.note(Change { kind: Kind::Truncate, offset: len, len: 0, file_len_before, undo_len });
        self.bytes.resize(len, 0);
        self.bytes.shrink_to(len);
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
        let byte = usize::try_from(bit / 8).ok().and_then(|byte| self.bytes.get_mut(byte));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
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
        let end = change.offset + change.len;
        let written = self.bytes.get(change.offset..end).unwrap_or_default().to_vec();
        let undo = self.undo.split_off(self.undo.len() - change.undo_len);
        self.bytes.resize(change.file_len_before, 0);
        put(&mut self.bytes, change.offset.min(change.file_len_before), &undo);
        written
    }

    fn redo(&mut self, change: Change, fate: Fate, written: &[u8], dice: &mut Dice<'_>) -> Fate {
        match (fate, change.kind) {
            (Fate::Lost, _) => Fate::Lost,
            (Fate::Kept, Kind::Write) => {
                put(&mut self.bytes, change.offset, written);
                Fate::Kept
            }
            (Fate::Torn, Kind::Write) => {
                self.redo_sectors(change.offset, written, dice);
                Fate::Torn
            }
            (Fate::Torn, Kind::Truncate) if dice.coin() => Fate::Lost,
            (Fate::Kept | Fate::Torn, Kind::Truncate) => {
                self.bytes.resize(change.offset, 0);
                Fate::Kept
            }
        }
    }

    fn redo_sectors(&mut self, offset: usize, written: &[u8], dice: &mut Dice<'_>) {
        let (mut offset, mut rest) = (offset, written);
        while !rest.is_empty() {
            let (sector, after) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
            if dice.coin() {
                put(&mut self.bytes, offset, sector);
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

/// Fills `into` from `bytes`, with zeros beyond their end; whether there were enough.
pub(super) fn read(bytes: &[u8], offset: usize, into: &mut [u8]) -> bool {
    let there = bytes.get(offset..).unwrap_or_default();
    let (there, _) = there.split_at(there.len().min(into.len()));
    let (filled, missing) = into.split_at_mut(there.len());
    filled.copy_from_slice(there);
    missing.fill(0);
    missing.is_empty()
}

/// Writes `data` over `bytes`, which grow as far as needed and only by half beyond.
pub(super) fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if end > bytes.capacity() {
        bytes.reserve_exact((end - bytes.len()).max(bytes.len() / 2).max(GROWTH_BYTES_MIN));
    }
    if data.is_empty() {
        return;
    }
    if offset > bytes.len() {
        bytes.resize(offset, 0);
    }
    let (over, new) = data.split_at((bytes.len() - offset).min(data.len()));
    bytes.get_mut(offset..offset + over.len()).expect("it lies within the file").copy_from_slice(over);
    bytes.extend_from_slice(new);
}
