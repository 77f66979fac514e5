//! What is measured: messages, latencies, and the processor time of the server and of this process.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use crate::Target;

/// A server that sends nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(5);

/// `utime + stime` of a process with all its threads, those that ended too. In ticks of 10 ms.
fn processor_time(process: &str) -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit_once(')').ok_or("no name in stat")?.1;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Latencies by size: 32 steps to each power of two, so within 3 %.
struct Latencies(Vec<u64>);

impl Latencies {
    fn slot(nanos: u64) -> usize {
        let nanos = nanos.max(32);
        let shift = 58 - nanos.leading_zeros();
        shift as usize * 32 + (nanos >> shift) as usize
    }

    fn percentile(&self, percent: u64) -> f64 {
        let wanted = (self.0.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        for (slot, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                let shift = (slot / 32).saturating_sub(1);
                return ((slot - shift * 32) as u64 * (1 << shift)) as f64 / 1e3;
            }
        }
        0.0
    }
}

/// Counts from the end of the warm-up to the end of the window.
pub(crate) struct Counters<'a> {
    target: &'a Target,
    begin: Instant,
    counting: bool,
    messages: u64,
    latencies: Latencies,
    last_progress: Instant,
    server: Duration,
    own: Duration,
}

impl<'a> Counters<'a> {
    pub(crate) fn start(target: &'a Target) -> Self {
        Self {
            target,
            begin: Instant::now(),
            counting: false,
            messages: 0,
            latencies: Latencies(vec![0; 64 * 32]),
            last_progress: Instant::now(),
            server: Duration::ZERO,
            own: Duration::ZERO,
        }
    }

    pub(crate) fn count(&mut self, begun: Instant, now: Instant) {
        self.messages += 1;
        self.latencies.0[Latencies::slot((now - begun).as_nanos() as u64)] += 1;
        self.last_progress = now;
    }

    /// Whether the warm-up is over.
    pub(crate) fn is_counting(&self) -> bool {
        self.counting
    }

    /// Whether it goes on; called after every wait.
    pub(crate) fn go_on(&mut self) -> Result<bool, Box<dyn Error>> {
        let now = Instant::now();
        if now - self.last_progress > STALLED {
            return Err(format!("nothing for {STALLED:?}").into());
        }
        if !self.counting && now - self.begin >= self.target.warm_up {
            self.server = processor_time(&self.target.pid.to_string())?;
            self.own = processor_time("self")?;
            self.counting = true;
            self.messages = 0;
            self.latencies.0.fill(0);
            self.begin = Instant::now();
            return Ok(true);
        }
        Ok(!self.counting || now - self.begin < self.target.window)
    }

    /// `reply` is the length of an answer on the wire.
    pub(crate) fn report(self, reply: usize) -> Result<(), Box<dyn Error>> {
        if self.messages == 0 {
            return Err("nothing within the window".into());
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let server = (processor_time(&self.target.pid.to_string())? - self.server).as_secs_f64();
        let own = (processor_time("self")? - self.own).as_secs_f64();
        println!(
            "{{\"rate\": {:.1}, \"cpu\": {:.4}, \"p50\": {:.1}, \"p99\": {:.1}, \
             \"server_share\": {:.3}, \"load_share\": {:.3}, \"wire\": {}}}",
            self.messages as f64 / seconds,
            server * 1e6 / self.messages as f64,
            self.latencies.percentile(50),
            self.latencies.percentile(99),
            server / seconds,
            own / seconds,
            reply,
        );
        Ok(())
    }
}
