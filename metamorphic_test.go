package s3sink_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given any settings, restarts and faults, then they change the objects and the
// times of delivery, but neither the lines nor the order of the lines of a
// source.
func TestLines_IndependentOfSettings(t *testing.T) {
	t.Parallel()
	seeds := uint64(20 * max(*days, 1))
	if raceEnabled {
		seeds /= 4
	}
	for seed := *daySeed; seed < *daySeed+seeds; seed++ {
		said := say(seed)
		plain := new(delivery).deliver(t, said)
		other := newDelivery(seed)
		got := other.deliver(t, said)
		for stream := range streams {
			if !slices.Equal(got[stream], plain[stream]) {
				t.Errorf("seed %d: stream %d has %d lines of %d, or others, or in another order, with %+v", seed, stream, len(got[stream]), len(plain[stream]), other)
			}
		}
	}
}

const streams = 5

// saying is an event and the pause before it is tracked.
type saying struct {
	stream int
	line   string
	pause  time.Duration
}

// say returns events of several streams. Some lines occur more than once.
func say(seed uint64) (all []saying) {
	rng := rand.New(rand.NewPCG(seed, 5))
	for n := range 100 + rng.IntN(300) {
		s := saying{stream: rng.IntN(streams)}
		s.line = fmt.Sprintf(`{"stream":%d,"n":%d,"text":"%s"}`, s.stream, n, hex(rng, rng.IntN(900)))
		if rng.IntN(10) == 0 {
			s.line = fmt.Sprintf(`{"stream":%d}`, s.stream)
		}
		if rng.IntN(5) == 0 {
			s.pause = upTo(rng, 20*time.Second)
		}
		all = append(all, s)
	}
	return all
}

// delivery describes how events reach the bucket. The zero value has one
// source, and no restarts, faults or spool.
type delivery struct {
	Sources    int // number of sources for the streams; 0: one
	Restarts   int
	Faults     bool
	Spool      bool
	Durability s3sink.Durability
	Midnight   bool // midnight passes during the delivery
	Set        func(*s3sink.Config)

	seed uint64
	rng  *rand.Rand
	disk *crashfs.FS
}

func newDelivery(seed uint64) *delivery {
	rng := rand.New(rand.NewPCG(seed, 6))
	d := &delivery{
		Sources: 1 + rng.IntN(streams), Restarts: rng.IntN(4), Faults: rng.IntN(2) == 0,
		Spool: rng.IntN(3) > 0, Midnight: rng.IntN(2) == 0, seed: seed,
	}
	if d.Spool {
		d.Durability = s3sink.Durability(rng.IntN(2))
	}
	d.Set = func(c *s3sink.Config) {
		rng := rand.New(rand.NewPCG(seed, 7)) // every process gets the same settings
		c.MaxEventBytes = 1 << 10
		c.MaxObjectBytes = int64(2000 + rng.IntN(50_000))
		c.MaxObjectEvents = []int64{0, 1, 3, 50}[rng.IntN(4)]
		c.MaxObjectAge = 100*time.Millisecond + upTo(rng, time.Minute)
		c.MaxMemory = 1<<20 + rng.Int64N(1<<20)
		c.MaxOpenPartitions = 1 + rng.IntN(5)
		c.CompressionLevel = 1 + rng.IntN(9)
		c.UploadConcurrency = 1 + rng.IntN(8)
		c.CommitInterval = 10*time.Millisecond + upTo(rng, 5*time.Second)
		c.KeyFormat = []s3sink.KeyFormat{s3sink.SegmentKeys, s3sink.RudderStackKeys, s3sink.RudderStackListedKeys, s3sink.HiveKeys}[rng.IntN(4)]
		c.CreateOnly = []s3sink.CreateOnly{s3sink.CreateOnlyOn, s3sink.CreateOnlyOff}[rng.IntN(2)]
		c.Prefix = []string{"", "a/b"}[rng.IntN(2)]
	}
	return d
}

// deliver tracks the events, and returns the lines of each stream in the
// bucket.
func (d *delivery) deliver(t *testing.T, said []saying) (stored [streams][]string) {
	t.Helper()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		d.rng, d.disk = rand.New(rand.NewPCG(d.seed, 8)), crashfs.New(d.seed)
		if d.Midnight {
			time.Sleep(24*time.Hour - 30*time.Second)
		}
		if d.Faults {
			disturb(server, d.rng)
		}
		restarts := map[int]bool{}
		for range d.Restarts {
			restarts[d.rng.IntN(len(said))] = true
		}
		sink := d.open(t, cfg)
		for i, s := range said {
			if restarts[i] {
				d.end(t, sink)
				sink = d.open(t, cfg)
			}
			time.Sleep(s.pause)
			d.track(t, sink, s)
		}
		if err := closeWithin(t, sink, 24*time.Hour); err != nil {
			t.Fatalf("%+v: %v", d, err)
		}
		if left, err := d.disk.Dir().List(); d.Spool && (err != nil || len(left) != 1 || left[0].Name != vfs.LockName) {
			t.Errorf("%+v: left behind: %v, %v", d, left, err)
		}
		stored = linesOfStreams(t, server)
	})
	return stored
}

func (d *delivery) open(t *testing.T, cfg s3sink.Config) *s3sink.Sink {
	t.Helper()
	if d.Set != nil {
		d.Set(&cfg)
	}
	if !d.Spool {
		return open(t, cfg)
	}
	cfg.Durability = d.Durability
	return openOnDisk(t, cfg, d.disk)
}

// track tracks one event with a random method of its source.
func (d *delivery) track(t *testing.T, sink *s3sink.Sink, s saying) {
	t.Helper()
	src, err := sink.Source(fmt.Sprint("source-", s.stream%max(d.Sources, 1)))
	if err != nil {
		t.Fatal(err)
	}
	switch d.rng.IntN(3) {
	case 0:
		err = src.TrackContext(t.Context(), json.RawMessage(s.line))
	case 1:
		err = src.TrackContext(t.Context(), []byte(s.line+"\n"))
	default:
		err = src.TrackLineContext(t.Context(), []byte(s.line))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// end ends a process at random with Close, a kill or a power cut, and loses no
// event.
func (d *delivery) end(t *testing.T, sink *s3sink.Sink) {
	t.Helper()
	if !d.Spool {
		if err := closeWithin(t, sink, 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d.rng.IntN(2) == 0 {
		closeWithin(t, sink, upTo(d.rng, time.Second))
		d.disk = d.disk.Kill()
		return
	}
	if d.Durability == s3sink.SyncInterval {
		time.Sleep(6 * time.Second) // more than any CommitInterval
	}
	d.disk.Stop()
	if before := d.disk; d.rng.IntN(2) == 0 {
		d.disk = before.Kill()
	} else {
		d.disk = before.Crash(d.rng)
	}
	closeWithin(t, sink, 0) // ends the goroutines of the killed process
}

// disturb makes random PUTs fail in different ways.
func disturb(server *s3sinktest.Server, rng *rand.Rand) {
	for _, f := range []s3sinktest.Fault{
		{Status: 503}, {LoseResponse: true}, {CutAnswer: true}, {Status: 400, Code: "BadDigest"}, {CutAfter: 10},
	} {
		f.Operation, f.Match = "PutObject", oneIn(8, rng.Uint64())
		server.Inject(f)
	}
}

var anyUUID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// linesOfStreams returns the lines of each stream, in the order of the UUIDs in
// the keys. Keys of every format have a UUID.
func linesOfStreams(t *testing.T, server *s3sinktest.Server) (all [streams][]string) {
	t.Helper()
	objects := server.Objects(s3sinktest.Bucket)
	slices.SortFunc(objects, func(a, b s3sinktest.Object) int {
		return cmp.Compare(anyUUID.FindString(a.Key), anyUUID.FindString(b.Key))
	})
	for _, o := range objects {
		o.Writes = 1 // without CreateOnly a key may be written more than once
		for _, line := range unpack(t, o).lines {
			var e struct{ Stream int }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			all[e.Stream] = append(all[e.Stream], line)
		}
	}
	return all
}
