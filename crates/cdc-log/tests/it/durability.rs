//! Writes that are acknowledged before they are on disk, as readers see them.

use cdc_log::{Durability, Emit, Error, Limit, Log, Tables};
use cdc_model::Sequence;

use crate::log::{body, open, owned};
use crate::witness::folder;

fn write(log: &mut Log, id: &str) {
    log.write(|tx| tx.emit(&Emit::insert("notes", id, &1).unwrap())).unwrap();
}

fn seq(at: u64) -> Sequence {
    Sequence::new(at)
}

fn rows(log: &Log) -> usize {
    log.read(Sequence::ZERO, Limit::default()).unwrap().len()
}

#[test]
fn nobody_is_shown_what_is_not_on_disk() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let tail = log.tail();
    let mut reader = open(&path);
    log.set_durability(Durability::Normal);
    write(&mut log, "first");
    write(&mut log, "second");
    for log in [&mut log, &mut reader, &mut open(&path)] {
        log.refresh().unwrap();
        assert_eq!((log.tail(), log.is_synced()), (tail, false));
        assert_eq!(rows(log), usize::try_from(tail.sequence.get()).unwrap());
        let beyond = log.position_at(tail.sequence.next());
        assert!(matches!(beyond, Err(Error::BeyondTail { .. })), "{beyond:?}");
        assert_eq!(log.at_rest(|_, _| Ok::<_, Error>(())).unwrap(), None, "the tables are ahead of the log");
    }
    log.sync().unwrap();
    reader.refresh().unwrap();
    let synced = log.tail();
    for log in [&log, &reader, &open(&path)] {
        assert_eq!((log.tail().sequence, log.is_synced()), (seq(tail.sequence.get() + 2), true));
        assert_eq!(log.tail(), synced, "digests too");
    }
    log.verify().unwrap();
}

#[test]
fn what_is_committed_for_good_takes_all_before_it_along() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let tail = log.tail().sequence.get();
    log.set_durability(Durability::Normal);
    write(&mut log, "first");
    log.transact(|log| log.append(cdc_model::Timestamp::ZERO, body(1, 1))).unwrap();
    assert_eq!((log.tail().sequence, log.is_synced()), (seq(tail + 2), true));
    write(&mut log, "second");
    let given_up = log.transact(|_| Err::<(), _>(Error::GivenUp { reason: "a test".to_owned() }));
    assert!(given_up.is_err() && !log.is_synced(), "what is undone syncs nothing");
    // From now on as before.
    log.set_durability(Durability::Full);
    write(&mut log, "third");
    assert_eq!((log.tail().sequence, log.is_synced()), (seq(tail + 4), true));
    assert_eq!(open(&path).tail(), log.tail());
}

#[test]
fn who_opens_what_an_ended_process_left_brings_it_to_disk_first() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let tail = log.tail().sequence.get();
    log.set_durability(Durability::Normal);
    write(&mut log, "first");
    // It changes nothing that the log has rows of.
    log.write(|tx| tx.execute_batch("CREATE TABLE other(a)")).unwrap();
    // What the process would have left, had it ended here.
    let left = folder.path().join("left");
    for end in ["", "-wal"] {
        std::fs::copy(format!("{}{end}", path.display()), format!("{}{end}", left.display())).unwrap();
    }
    let mut anew = open(&left);
    assert_eq!((anew.tail().sequence, anew.is_synced()), (seq(tail), false));
    anew.make_durable().unwrap();
    assert!(anew.tail().sequence > seq(tail) && anew.is_synced());
    assert_eq!(open(&left).tail(), anew.tail());
    // A log that is closed in order owes nothing.
    drop(log);
    assert!(open(&path).is_synced());
}

#[test]
fn what_is_shown_never_goes_back_also_when_another_handle_has_synced_it() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    log.set_durability(Durability::Normal);
    let mut shown = log.tail().sequence;
    for n in 0..6 {
        write(&mut log, &format!("first {n}"));
        // Somebody else commits for good, and takes along what he does not know of.
        let mut other = open(&path);
        other.transact(|log| log.count("things", 1)).unwrap();
        let tail = open(&path).tail().sequence;
        assert!(tail > shown);
        write(&mut log, &format!("second {n}"));
        let now = open(&path).tail().sequence;
        assert!(now >= tail, "{tail} was shown, then {now}");
        shown = now;
    }
    log.sync().unwrap();
    assert_eq!(open(&path).tail(), log.tail());
}

#[test]
fn one_of_a_group_that_fails_takes_nothing_of_the_others_along() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    let tail = log.tail();
    let told = log.group(Durability::Normal, |group| {
        let first = group.write(|tx| tx.emit(&Emit::insert("notes", "first", &1)?));
        let second = group.write(|tx| {
            tx.emit(&Emit::insert("notes", "second", &1)?)?;
            Err::<(), _>(Error::GivenUp { reason: "a test".to_owned() })
        });
        (first.is_ok(), second.is_ok())
    });
    assert_eq!(told.unwrap(), (true, false));
    assert_eq!((log.tail(), open(&path).tail()), (tail, tail));
    log.sync().unwrap();
    assert_eq!(log.tail().sequence, tail.sequence.next());
    log.verify().unwrap();
}

#[test]
fn opening_a_log_writes_nothing() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    log.set_durability(Durability::Normal);
    write(&mut log, "first");
    let wal = || std::fs::read(format!("{}-wal", path.display())).unwrap();
    let before = wal();
    let reader = open(&path);
    reader.read(Sequence::ZERO, Limit::default()).unwrap();
    drop(reader);
    assert_eq!(wal(), before, "what is not on disk is not brought there by who reads");
}

#[test]
fn capturing_what_is_captured_already_writes_nothing() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut log = owned(&path);
    write(&mut log, "first");
    let wal = || std::fs::read(format!("{}-wal", path.display())).unwrap();
    let before = wal();
    log.capture(&Tables::All).unwrap();
    drop(log.leave_wal());
    drop(log);
    let mut again = open(&path);
    again.capture(&Tables::All).unwrap();
    assert_eq!(wal(), before);
    again.write(|tx| tx.execute_batch("CREATE TABLE another(a)")).unwrap();
    again.capture(&Tables::Named(vec!["another".to_owned()])).unwrap();
    write(&mut again, "second");
    assert_ne!(wal(), before);
}
