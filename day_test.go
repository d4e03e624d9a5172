package s3sink_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

var (
	days    = flag.Int("days", 0, "how many days TestDayWithRestarts lives through; 0: two, and of less than 24 hours where that takes long")
	daySeed = flag.Uint64("seed", 1, "of the first of these days; each next one has the next")
)

// Given a day of failures of every kind in S3, STS and the disk, each for
// minutes or hours, when the process is stopped, killed or loses power some
// dozens of times, also during a disk operation and during recovery, then a
// last process delivers the remaining events. Every promised event is in the
// bucket once and in order, no other event is, and the counts balance in every
// run.
func TestDayWithRestarts(t *testing.T) {
	t.Parallel()
	long := 24 * time.Hour
	if *days == 0 && raceEnabled { // the race detector makes the test ten times slower
		long /= 4
	}
	for n := range uint64(cmp.Or(*days, 2)) {
		t.Run(fmt.Sprint("seed=", *daySeed+n), func(t *testing.T) {
			t.Parallel()
			// The store ignores x-amz-checksum-crc32, as old stores do.
			opts := []s3sinktest.Option{s3sinktest.IgnoreChecksums()}
			if (*daySeed+n)%2 == 1 {
				opts = append(opts, s3sinktest.TLS())
			}
			bubbleWith(t, opts, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				d := newDay(t, server, cfg, *daySeed+n)
				d.pass(long)
				d.last()
				d.ledger.check(t, server)
				t.Log(d)
			})
		})
	}
}

// day is the state that outlives a process, and the process that runs now.
type day struct {
	t      *testing.T
	rng    *rand.Rand
	cfg    s3sink.Config
	server *s3sinktest.Server
	disk   *crashfs.FS
	faults *diskFaults
	sky    *sky
	ledger *ledger
	counts map[string]int // restarts, by kind

	sink      *s3sink.Sink // nil while no process runs
	wire      *wire
	born      time.Time
	log       *logLines
	skew      time.Duration // of the clock that the ids of keys and runs use
	died      chan struct{} // closed when the process ends during a disk operation
	callers   sync.WaitGroup
	hangUp    context.CancelFunc // cancels the contexts of the callers
	found     int64              // bytes on disk when the process began
	outages   int                // checks of the sink during long outages
	looked    time.Time          // time of the last check of the sink
	recovered int64              // events that the previous process left in the spool; -1: unknown
}

func newDay(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config, seed uint64) *day {
	rng := rand.New(rand.NewPCG(seed, 24))
	cfg.Durability = s3sink.Durability(seed % 2)
	cfg.CreateOnly = []s3sink.CreateOnly{s3sink.CreateOnlyOn, s3sink.CreateOnlyOff}[rng.IntN(2)]
	cfg.MaxMemory, cfg.MaxSpoolBytes, cfg.MaxEventBytes = 1<<20, 1<<20, 1<<10
	cfg.MaxObjectEvents = int64(rng.IntN(3) * 100)
	cfg.MaxObjectBytes = int64(5000 + rng.IntN(100_000))
	if rng.IntN(3) == 0 {
		cfg.Credentials = s3sink.AccessKeys("AKIADAY0000000000000", "secret", "")
		server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::111122223333:user/day", AccessKeyID: "AKIADAY0000000000000", SecretAccessKey: "secret"})
	}
	d := &day{
		t: t, rng: rng, cfg: cfg, server: server, disk: crashfs.New(seed),
		faults: newDiskFaults(seed, seed/2%2 == 0),
		sky:    newSky(server, seed),
		ledger: newLedger(cfg.Durability), counts: map[string]int{}, recovered: -1,
	}
	time.Sleep(upTo(rng, 24*time.Hour)) // the day begins at a random time, so midnight comes at any time
	return d
}

func (d *day) String() string {
	refused, unknown, taken, promised := d.ledger.count()
	lives, how := 0, ""
	for _, kind := range slices.Sorted(maps.Keys(d.counts)) {
		lives += d.counts[kind]
		how += fmt.Sprintf(" %s %d,", kind, d.counts[kind])
	}
	return fmt.Sprintf("durability %d: %d events taken, %d of them promised, %d unknown, %d refused; %d lives:%s; disk: %v; S3 and STS: %v, seen %d times in a long outage; %d PUTs",
		d.cfg.Durability, taken, promised, unknown, refused, lives, strings.TrimSuffix(how, ","), d.faults.counts, d.sky.counts, d.outages, d.sky.attempts.Load())
}

// pass runs processes for a day.
func (d *day) pass(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end) && !d.t.Failed(); {
		if !d.start() {
			d.wait(5 * time.Second) // the operator starts the service again
			continue
		}
		short := d.rng.IntN(3) == 0
		if short || d.rng.IntN(4) == 0 {
			d.faults.stopIn(d.rng.IntN(100))
		}
		if short { // the process ends during recovery or soon after
			d.wait(upTo(d.rng, 5*time.Second))
		} else {
			d.wait(upTo(d.rng, 80*time.Minute))
		}
		d.end()
		d.wait(upTo(d.rng, 20*time.Second))
	}
}

// start starts a process. New may fail if the disk fails.
func (d *day) start() bool {
	d.died = make(chan struct{})
	d.found = 0
	for _, f := range d.files() {
		d.found += f.Size
	}
	d.faults.begin(d.disk, d.died)
	d.wire = newWire(d.server, d.sky, d.ledger, d.t)
	cfg := d.cfg
	cfg.HTTPClient = d.wire.client()
	d.log = new(logLines)
	cfg.Logger = d.log.logger()
	if d.rng.IntN(3) == 0 { // the clock was set between two processes
		d.skew = upTo(d.rng, 4*time.Hour) - 2*time.Hour
	}
	skew := d.skew
	now := func() time.Time { return time.Now().Add(skew) }
	sink, err := s3sink.NewOnDiskAt(d.t.Context(), cfg, d.disk.Dir(), now)
	if err != nil {
		d.counts["refused to start"]++
		var spool *s3sink.SpoolError
		if !errors.As(err, &spool) || !d.faults.since(0) {
			d.t.Errorf("New: %v, but the disk is well", err)
		}
		if open := d.disk.Handles(); len(open) > 0 {
			d.t.Errorf("New: %v, and these are still open: %v", err, open)
		}
		return false
	}
	d.sink, d.born = sink, time.Now()
	ctx, cancel := context.WithCancel(d.t.Context())
	d.hangUp = cancel
	d.ledger.noRoom.Store(false)
	for source := range sourcesOfDay {
		c := &caller{day: d, sink: sink, source: source, rng: rand.New(rand.NewPCG(d.rng.Uint64(), 1))}
		d.callers.Go(func() { c.run(ctx) })
	}
	return true
}

// wait advances the clock by span, or until the process ends during a disk
// operation.
func (d *day) wait(span time.Duration) {
	for until := time.Now().Add(span); ; {
		next := until
		for _, t := range []time.Time{d.sky.change, d.sky.denyChange, d.faults.change, d.looked.Add(7 * time.Minute)} {
			if t.Before(next) {
				next = t
			}
		}
		select {
		case <-time.After(time.Until(next)):
		case <-d.died:
			return
		}
		synctest.Wait()
		d.look()
		d.sky.turn(d.t)
		d.faults.turn()
		if !time.Now().Before(until) {
			return
		}
	}
}

// isDead reports whether the process has ended during a disk operation.
func (d *day) isDead() bool {
	select {
	case <-d.died:
		return true
	default:
		return false
	}
}

// end ends the process in a random way.
func (d *day) end() {
	switch kind := d.rng.IntN(3); {
	case kind == 0 && !d.isDead() && d.rng.IntN(2) == 0:
		d.counts["closed while S3 recovers"]++
		d.closeWhileS3Recovers()
		d.disk = d.disk.Kill()
	case kind == 0 && !d.isDead():
		d.counts["closed"]++
		d.close()
		d.disk = d.disk.Kill()
	case kind == 1:
		d.counts["killed"]++
		d.die()
		d.disk = d.disk.Kill()
	default:
		d.counts["cut"]++
		d.die()
		d.disk = d.disk.Crash(d.rng)
	}
	d.wire.hangUp()
	if d.rng.IntN(3) == 0 {
		d.disk.Evict(d.rng)
	}
	d.sink = nil
}

// close ends the process as a service should.
func (d *day) close() {
	if d.rng.IntN(2) == 0 {
		d.hangUp()
		d.callers.Wait()
	}
	grace := upTo(d.rng, 10*time.Second)
	ctx, cancel := context.WithTimeout(d.t.Context(), grace)
	defer cancel()
	d.sky.urgent += grace
	d.checkClosed(d.sink.Close(ctx))
}

// closeWhileS3Recovers closes the sink during an outage that soon ends, as a
// deploy may do. An STS request that began in the outage takes up to 10 s. So
// Close delivers everything if it has 12 s after the outage, unless the disk
// fails.
func (d *day) closeWhileS3Recovers() {
	const grace = 25 * time.Second
	d.sky.clear(d.t)
	d.sky.change = time.Now().Add(time.Hour)
	d.sky.begin(d.sky.passingStorm())
	d.wait(upTo(d.rng, 3*time.Minute))
	allowed := !d.sky.denies.Load() || d.rng.IntN(4) == 0
	if allowed {
		d.sky.deny(false)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), grace)
	defer cancel()
	d.sky.urgent += grace
	done := make(chan error, 1)
	go func() { done <- d.sink.Close(ctx) }()
	time.Sleep(upTo(d.rng, grace-12*time.Second))
	d.sky.clear(d.t)
	d.sky.change = time.Now().Add(upTo(d.rng, 80*time.Minute))
	err := <-done
	if err != nil && allowed && !d.isDead() && !d.faults.since(time.Since(d.born)) {
		d.t.Errorf("S3 was well for 12 s before the end of Close, but: %v", err)
	}
	d.checkClosed(err)
}

// checkClosed checks a sink after its Close returned err.
func (d *day) checkClosed(err error) {
	d.hangUp()
	d.callers.Wait()
	checkBooks(d.t, d.sink)
	st := d.sink.Stats()
	if said := d.log.with(d.t, refusesText); d.ledger.noRoom.Load() && len(said) == 0 {
		d.t.Error("events found no room, and the log does not say so")
	}
	var left *s3sink.CloseError
	if errors.As(err, &left); err == nil && st.Pending > 0 || err != nil && (left == nil || left.Left != st.Pending || left.Dropped > 0 && st.SpoolError == nil) {
		d.t.Errorf("close: %v, %+v", err, st)
	}
	died, safe := d.isDead(), err == nil || errors.Is(err, s3sink.ErrLeftInSpool)
	d.recovered = -1
	if !safe && !died && !d.faults.since(time.Hour) {
		d.t.Errorf("close: %v, but the disk is well: everything must be in the spool", err)
	}
	known := st.SpoolError == nil && !died // the contents of the disk are known
	if safe || known {
		d.ledger.closed() // every event that Track accepted is in S3 or in the spool
	} else {
		d.ledger.crashed(d.faults.ended(), st.Synced, d.faults.troubled())
	}
	if known {
		if files := d.files(); err == nil && len(files) != 1 && !d.faults.since(time.Minute) {
			d.t.Errorf("all is in S3, and this is left: %v", files)
		}
		if !errors.Is(err, s3sink.ErrUnread) {
			d.recovered = st.Pending
		}
	}
	var spool *s3sink.SpoolError
	if st.SpoolError != nil && err != nil && !errors.As(err, &spool) {
		d.t.Errorf("close: %v, but the last commit failed: %v", err, st.SpoolError)
	}
	if open := d.disk.Handles(); len(open) > 0 && !died {
		d.t.Errorf("open after Close: %v", open)
	}
}

// files lists the files on the disk. No process runs.
func (d *day) files() []vfs.Entry {
	d.faults.stopIn(-1)
	dir := d.disk.Dir()
	defer dir.Close()
	all, err := dir.List()
	if err != nil && !d.faults.since(0) {
		d.t.Error(err)
	}
	return all
}

// die ends the process by force: no operation reaches the disk any longer.
func (d *day) die() {
	at, synced := d.faults.ended(), d.sink.Stats().Synced
	d.disk.Stop()
	d.hangUp()
	d.callers.Wait()
	d.ledger.crashed(at, synced, d.faults.troubled())
	d.recovered = -1
	dead, cancel := context.WithCancel(d.t.Context())
	cancel()
	d.sink.Close(dead)
	checkBooks(d.t, d.sink)
}

// last ends all failures, and runs a process that delivers the remaining
// events.
func (d *day) last() {
	d.sky.clear(d.t)
	d.sky.deny(false)
	d.faults.clear()
	if !d.start() {
		return
	}
	time.Sleep(time.Minute)
	d.hangUp()
	d.callers.Wait()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute) // shorter than MaxObjectAge
	defer cancel()
	if err := d.sink.Close(ctx); err != nil {
		d.t.Errorf("the last one: %v", err)
	}
	checkBooks(d.t, d.sink)
	d.ledger.closed()
	d.wire.hangUp()
	left := d.files()
	if len(left) != 1 || left[0].Name != vfs.LockName {
		d.t.Errorf("left behind: %v", left)
	}
}

// look compares Stats and Err of the sink with the state of S3, STS and the
// disk.
func (d *day) look() {
	d.looked = time.Now()
	if d.sink == nil {
		return
	}
	st := d.sink.Stats()
	checkBooks(d.t, d.sink)
	// SpoolBytes may exceed its limit by two amounts. Callers track far less
	// than MaxMemory/4 in the longest time without a commit. Recovery rewrites
	// records that may not be fsynced, at most d.found bytes.
	//
	// A spool that was too full when the process began is not checked: it holds
	// files of failed commits that a power cut brought back.
	full := d.found < d.cfg.MaxSpoolBytes && st.SpoolBytes > d.cfg.MaxSpoolBytes+d.cfg.MaxMemory/4+d.found
	if full || st.MemoryPeak > d.cfg.MaxMemory || st.Quarantined+st.Dropped > 0 {
		d.t.Errorf("after %v: %+v", time.Since(d.born), st)
	}
	d.lookAtErrors(st)
	if d.recovered >= 0 && st.Recovered != d.recovered && d.sink.Err() == nil && time.Since(d.born) > time.Minute && !d.faults.since(time.Minute) {
		d.t.Errorf("recovered %d events, the one before had left %d", st.Recovered, d.recovered)
	}
	if well := 10 * time.Minute; time.Since(d.born) > well && d.sky.calm(well) && !d.faults.since(well) {
		allowed := d.sky.allows(well)
		if err := d.sink.Err(); allowed && err != nil || st.SpoolError != nil {
			d.t.Errorf("all is well, but Err is %v and SpoolError %v", err, st.SpoolError)
		}
		if allowed && st.Pending > 0 && time.Since(st.Oldest) > s3sink.DefaultMaxObjectAge+time.Second {
			d.t.Errorf("all is well, but an event has waited for %v: %+v", time.Since(st.Oldest), st)
		}
		d.ledger.flows(d.t) // also while S3 denies the quiet source, which has few objects
	}
}

// lookAtErrors checks that Err and Stats report a failure while it lasts.
func (d *day) lookAtErrors(st s3sink.Stats) {
	if d.faults.dead(10*time.Second) && time.Since(d.born) > 10*time.Second && d.ledger.active(st.Synced) {
		if err := d.sink.Err(); st.SpoolError == nil || err == nil {
			d.t.Errorf("nothing comes to the disk, but Err is %v and SpoolError %v", err, st.SpoolError)
		}
	}
	// Within this time the open object is sealed, and its attempts fail for
	// LastingOutage.
	if long := s3sink.DefaultMaxObjectAge + s3sink.LastingOutage + 3*time.Minute; d.sky.outage(long) && time.Since(d.born) > long &&
		!d.faults.since(long) && st.Pending > 0 && time.Since(st.Oldest) > long {
		d.outages++
		var failed *s3sink.UploadError
		if err := d.sink.Err(); !errors.As(err, &failed) || st.UploadError == nil || st.FailingSince.IsZero() {
			d.t.Errorf("%s for %v, but Err is %v, and Stats says %v since %v", d.sky.storm.name, time.Since(d.sky.began), err, st.UploadError, st.FailingSince)
		}
	}
	var refused *s3sink.UploadError
	if d.wire.refused() && !errors.As(d.sink.Err(), &refused) {
		d.t.Errorf("S3 refuses, but Err is %v", d.sink.Err())
	}
}

// The last source is quiet: it has few events. At times S3 refuses its objects
// for hours.
const (
	sourcesOfDay = 4
	quietSource  = sourcesOfDay - 1
)

func sourceName(n int) string { return string(rune('a' + n)) }

// caller tracks events of one source for as long as the process runs.
type caller struct {
	day    *day
	sink   *s3sink.Sink
	source int
	rng    *rand.Rand
}

func (c *caller) run(ctx context.Context) {
	src, err := c.sink.Source(sourceName(c.source))
	if err != nil {
		c.day.t.Error(err)
		return
	}
	mean := 8 * time.Second
	if c.source == quietSource {
		mean = 5 * time.Minute
	}
	for {
		gap := time.Duration(c.rng.ExpFloat64() * float64(mean))
		select {
		case <-time.After(gap):
		case <-ctx.Done():
			return
		}
		events := 1
		if c.rng.IntN(100) == 0 {
			events = c.rng.IntN(150)
		}
		for ; events > 0 && ctx.Err() == nil; events-- {
			e := c.day.ledger.event(c.source, hex(c.rng, c.rng.IntN(300)))
			full := c.isFull()
			err := c.track(ctx, src, e.line)
			if err == nil && full && c.isFull() {
				c.day.t.Error("the spool is full, but an event was taken")
			}
			if !c.day.ledger.told(c.day.t, e, err) {
				return
			}
		}
	}
}

func (c *caller) isFull() bool { return c.sink.Stats().SpoolBytes > c.day.cfg.MaxSpoolBytes }

// track calls a random method of the sink that accepts an event.
func (c *caller) track(ctx context.Context, src *s3sink.Source, line string) error {
	way := c.rng.IntN(4)
	if c.day.faults.slow {
		way %= 2 // only calls with a context that ends
	}
	switch way {
	case 0:
		return src.TrackContext(ctx, json.RawMessage(line))
	case 1:
		ctx, cancel := context.WithTimeout(ctx, upTo(c.rng, 20*time.Second))
		defer cancel()
		return src.TrackLineContext(ctx, []byte(line))
	case 2:
		return src.TrackLine([]byte(line))
	}
	return src.Track([]byte(line))
}
