use cdc_model::{Batch, Position, Record};
use cdc_net::{Env as _, Http, HttpOptions, Reach, Request, Tokio, Transport, wire};
use cdc_relay::Hello;

use crate::parent::{Parent, Served, in_process};
use crate::{EPOCH, batch, child, log, parent_id, tail};

const RECORDS: usize = 100;
const BATCHES: usize = 500;

/// CPU time of this process in nanoseconds, all threads.
fn cpu() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(|thread| of(thread.ok()?)).sum()
}

async fn send(log: &[Record], transport: &dyn Transport) {
    let hello = Hello {
        sender: child(),
        generation: 1,
        session: 1,
        epoch: EPOCH,
        acked: cdc_model::Sequence::ZERO,
        tail: tail(log),
        floor: cdc_model::Sequence::new(1),
    };
    transport.call(&parent_id(), Request::Hello(hello)).await.unwrap();
    let mut after = Position::START;
    for records in log.chunks(RECORDS) {
        let through = records.iter().fold(after, |before, row| Position {
            sequence: row.sequence,
            digest: row.digest(before.digest),
        });
        let batch = Batch { after, through, records: records.to_vec(), ..batch(vec![]) };
        let answer = transport.call(&parent_id(), Request::Batch(batch)).await.unwrap();
        assert_eq!(answer.refusal, None);
        after = through;
    }
}

#[tokio::test]
#[ignore = "prints figures; run it with --release -- --ignored --nocapture"]
async fn what_a_batch_costs_through_a_socket_and_within_the_process() {
    let (env, log) = (Tokio::current(), log(u64::try_from(RECORDS * BATCHES).unwrap()));
    let events = u64::try_from(log.len()).unwrap();
    let report = |name: &str, began: std::time::Duration, used: u64| {
        let wall = env.now() - began;
        let per_second = f64::from(u32::try_from(events).unwrap()) / wall.as_secs_f64();
        println!("{name}: {per_second:.0} events/s, {} ns CPU per event", (cpu() - used) / events);
    };

    let net = in_process(&env, &Parent::new());
    let (began, used) = (env.now(), cpu());
    send(&log, &net).await;
    report("within the process", began, used);

    let served = Served::start(&env, "127.0.0.1:0", &Parent::new()).await;
    let http = Http::new(env.clone(), Reach::Loopback, HttpOptions::default());
    http.set_endpoint(parent_id(), served.address).unwrap();
    let (began, used) = (env.now(), cpu());
    send(&log, &http).await;
    report("through HTTP", began, used);
    served.stop().await;

    let request = Request::Batch(batch(log[..RECORDS].to_vec()));
    let steps = 200_u64;
    let each = |used: u64| (cpu() - used) / steps / u64::try_from(RECORDS).unwrap();
    let used = cpu();
    for _ in 0..steps {
        wire::encode_request(&parent_id(), &request).unwrap();
    }
    let encode = each(used);
    let text = wire::encode_request(&parent_id(), &request).unwrap();
    let used = cpu();
    for _ in 0..steps {
        wire::pack(&text).unwrap();
    }
    let pack = each(used);
    let packed = wire::pack(&text).unwrap();
    let used = cpu();
    for _ in 0..steps {
        wire::unpack(&packed, text.len()).unwrap();
    }
    let unpack = each(used);
    let used = cpu();
    for _ in 0..steps {
        wire::decode_request(wire::Kind::Batch, &text).unwrap();
    }
    let decode = each(used);
    println!(
        "of these, ns per event: encode {encode}, pack {pack}, unpack {unpack}, decode {decode}; bytes per event: {} as text, {} packed",
        text.len() / RECORDS,
        packed.len() / RECORDS
    );
}
