package spool_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var (
	crashes = flag.Int("crashes", 1000, "number of crashes in TestCrashes")
	seed    = flag.Uint64("seed", 0, "the only history that TestCrashes runs; 0: all")
	first   = flag.Uint64("first", 1, "the first history that TestCrashes runs")
)

const partitions = 3

// world outlives the process: the disk, the bucket, and what callers were told.
type world struct {
	rng   *rand.Rand
	disk  *crashfs.FS
	clock int             // clock that ids are drawn from; it is set back now and then
	next  [partitions]int // number of the next event
	acked [partitions]map[int]bool
	runs  int

	fileSize  int64                  // size limit of the journal's files
	ahead     int64                  // bytes to preallocate
	rewrite   int64                  // record bytes that recovery rewrites in one commit
	reserve   int64                  // size of the reserve file; 0: the volume has no limit
	dieInSync int                    // the process dies in this fsync of the life; 0: in none
	fault     func(crashfs.Op) error // fails operations of the disk, or nil

	shut    bool               // the bucket accepts nothing
	refuse  int                // the bucket refuses one key in this many until the last life; 0: none
	cleaned int64              // bytes copied by cleaning
	damaged bool               // the disk was damaged
	found   []*spool.Recovered // results of recovery

	trail  *trail  // of the current life
	points *points // of all worlds

	mu     sync.Mutex
	bucket map[string][]byte
	log    []string
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.log) < 10000 {
		w.log = append(w.log, fmt.Sprintf(format, args...))
	}
}

// life is one run of a process: a small sink without goroutines of its own.
type life struct {
	w    *world
	run  string
	j    *spool.Journal
	e    *deflate.Encoder
	seq  uint64
	blks uint64
	last atomic.Uint64 // last id

	mu      sync.Mutex
	open    [partitions][]*lifeBlock // blocks without a frame; only the last may be open
	unacked [partitions][]int        // events tracked and not acknowledged
	segs    [partitions]*spool.Segment
	ready   []*spool.Segment
	sealed  int // segments whose seal is not on disk

	unframed atomic.Int64 // bytes accepted and in no frame on disk
}

type lifeBlock struct {
	number uint64
	lines  []byte
	staged int
	cut    bool
}

// line returns an event. Every eighth is longer than a sector even when
// compressed, so that valid records can follow a torn one.
func line(p, n int) string {
	pad := strings.Repeat("x", n%37)
	if n%8 == 7 {
		rng := rand.New(rand.NewPCG(uint64(p), uint64(n)))
		random := make([]byte, 400+rng.IntN(1600))
		for i := range random {
			random[i] = byte(rng.Uint32())
		}
		pad = hex.EncodeToString(random)
	}
	return fmt.Sprintf("{\"p\":%d,\"n\":%d,\"pad\":%q}\n", p, n, pad)
}

func (l *life) gather(time.Time) (all []spool.Stage, _ bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, blocks := range l.open {
		for _, b := range blocks {
			if b.staged < len(b.lines) {
				all = append(all, spool.Stage{
					Partition: uint64(p), Block: b.number, Source: fmt.Sprint("src", p), Day: day, Offset: int64(b.staged),
					First: day, Last: day, Lines: [][]byte{b.lines[b.staged:len(b.lines):len(b.lines)]}, Release: func() {},
				})
				b.staged = len(b.lines)
			}
		}
	}
	return all, false
}

// start begins a life on the world's disk, and recovers the previous lives.
func (w *world) start(t *testing.T) (*life, error) {
	w.runs++
	trail := &trail{phase: "start"}
	w.trail = trail
	l := &life{w: w, run: fmt.Sprintf("%02x-run-%d", w.rng.IntN(256), w.runs)}
	var err error
	if l.e, err = deflate.NewEncoder(1); err != nil {
		t.Fatal(err)
	}
	dir := w.disk.Dir()
	if w.rng.IntN(3) == 0 {
		w.clock = w.rng.IntN(1000)
	}
	l.j, err = spool.NewJournal(spool.JournalSettings{Dir: dir, RunID: l.run, Interval: time.Hour, FileSize: w.fileSize, Preallocate: w.ahead, CopyStep: w.rewrite, ReserveBytes: w.reserve, DeliverEarly: l.early, LastID: l.last.Load, Gather: l.gather})
	if err != nil {
		return nil, err
	}
	trail.begin("recover")
	uploads := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
	w.disk.Inject(func(op crashfs.Op) error {
		switch trail.step(op.Call); op.Call {
		case crashfs.CallSync:
			if uploads.IntN(4) == 0 { // an upload in between
				l.put(t, false)
			}
			if w.dieInSync--; w.dieInSync == 0 {
				return crashfs.ErrStopped
			}
		case crashfs.CallCreate:
			if uploads.IntN(2) == 0 { // before the unsynced records are rewritten
				w.disk.Evict(uploads)
			}
		}
		if w.fault != nil {
			return w.fault(op)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go l.whileAlive(ctx, cancel)
	found, err := l.j.Recover(ctx)
	if err != nil {
		return l, err
	}
	if w.found = append(w.found, found); w.damaged {
		w.note("recovered %+v", found)
	} else if len(found.DamagedFiles) > 0 || found.LostEvents() > 0 || len(found.UnknownVersion) > 0 {
		t.Fatalf("recovery found damage on an undamaged disk: %+v\n%s", found, w.history())
	}
	trail.begin("live")
	w.note("recovered %d sealed, %d unfinished, torn %d", len(found.Sealed), len(found.Unfinished), found.TornBytes)
	l.last.Store(max(l.last.Load(), found.LastID))
	l.mu.Lock()
	l.ready = append(l.ready, found.Sealed...)
	l.mu.Unlock()
	for _, part := range found.Unfinished {
		if err := l.finish(t, part); err != nil {
			return l, err
		}
	}
	return l, nil
}

// whileAlive cancels ctx when the process has died.
func (l *life) whileAlive(ctx context.Context, cancel func()) {
	for ctx.Err() == nil {
		if errors.Is(l.j.Err(), crashfs.ErrStopped) {
			cancel()
		} else if l.j.Err() != nil {
			l.j.Commit(ctx) // stands for the interval
		}
		select {
		case <-time.After(50 * time.Microsecond):
		case <-ctx.Done():
		}
	}
}

// newSegment returns a segment with a new key. The key begins with an id, like a
// UUID with its time. The run's name stands for the random part of the UUID, which
// keeps keys apart when a damaged journal has lost the last id.
func (l *life) newSegment(source string) *spool.Segment {
	l.w.clock++
	l.last.Store(max(l.last.Load()+1, uint64(l.w.clock)))
	l.seq++
	return spool.NewSegment(spool.Header{
		RunID: l.run, Sequence: l.seq, Bucket: "b", Key: fmt.Sprintf("%08d-%s-%s", l.last.Load(), l.run, source), Source: source, Day: day, Opened: day,
	})
}

// early queues segments that were delivered early.
func (l *life) early(sealed []*spool.Segment) {
	l.w.note("%d sealed delivered early", len(sealed))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = append(l.ready, sealed...)
}

// isFull reports whether the volume may have no room for another event and for
// everything still to be written for the events before it.
func (l *life) isFull() bool {
	return l.w.reserve > 0 && l.j.Room() < 3*l.unframed.Load()+3*maxLine
}

// maxLine is greater than any event with its records and its share of a file.
const maxLine = 5000

func (l *life) seal(seg *spool.Segment) {
	l.mu.Lock()
	l.sealed++
	l.mu.Unlock()
	l.j.Seal(seg, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sealed--
		l.ready = append(l.ready, seg)
	})
}

func (l *life) track(p int) {
	if l.isFull() {
		return
	}
	n := l.w.next[p]
	l.w.next[p]++
	l.mu.Lock()
	defer l.mu.Unlock()
	blocks := l.open[p]
	if len(blocks) == 0 || blocks[len(blocks)-1].cut {
		l.blks++
		blocks = append(blocks, &lifeBlock{number: l.blks})
		l.open[p] = blocks
	}
	b := blocks[len(blocks)-1]
	b.lines = append(b.lines[:len(b.lines):len(b.lines)], line(p, n)...)
	l.unframed.Add(int64(len(line(p, n))))
	l.unacked[p] = append(l.unacked[p], n)
	l.w.note("%s track %d/%d block %d", l.run, p, n, b.number)
}

func (l *life) commit() {
	l.mu.Lock()
	unacked := l.unacked
	l.unacked = [partitions][]int{}
	l.mu.Unlock()
	err := l.j.Commit(context.Background())
	l.w.note("%s commit: %v", l.run, err)
	if err != nil {
		return // outcome unknown: may be delivered, once
	}
	for p, all := range unacked {
		for _, n := range all {
			l.w.acked[p][n] = true
		}
	}
}

func (l *life) cut(p int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.open[p]); n > 0 {
		l.open[p][n-1].cut = true
	}
}

// frame compresses the oldest closed block.
func (l *life) frame(t *testing.T, p int) {
	l.mu.Lock()
	if len(l.open[p]) == 0 || !l.open[p][0].cut {
		l.mu.Unlock()
		return
	}
	b := l.open[p][0]
	l.mu.Unlock()
	f, err := l.e.Frame([][]byte{b.lines})
	if err != nil {
		t.Fatal(err)
	}
	if l.segs[p] == nil {
		l.segs[p] = l.newSegment(fmt.Sprint("src", p))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.j.Append(l.segs[p], spool.Frame{Frame: f, Events: int64(bytes.Count(b.lines, []byte("\n"))), First: day, Last: day, Partition: uint64(p), Block: b.number,
		Durable: func() { l.unframed.Add(-int64(len(b.lines))) }})
	l.open[p] = l.open[p][1:]
	l.w.note("%s frame block %d of %d in %s", l.run, b.number, p, l.segs[p].Key)
}

func (l *life) sealOpen(p int) {
	if seg := l.segs[p]; seg != nil {
		l.segs[p] = nil
		l.w.note("%s seal %s", l.run, seg.Key)
		l.seal(seg)
	}
}

// put uploads the oldest sealed segment. With forget, the process does not
// learn of it before it dies.
func (l *life) put(t *testing.T, forget bool) bool {
	l.mu.Lock()
	at := slices.IndexFunc(l.ready, func(seg *spool.Segment) bool { return !l.w.refuses(seg.Key) })
	if at < 0 || l.w.shut {
		l.mu.Unlock()
		return false
	}
	seg := l.ready[at]
	l.ready = slices.Delete(l.ready, at, at+1)
	l.mu.Unlock()
	object, err := io.ReadAll(l.j.Object(seg))
	if err != nil {
		l.w.note("%s read %s: %v", l.run, seg.Key, err)
		return true // the process is dying
	}
	l.w.mu.Lock()
	before, ok := l.w.bucket[seg.Key]
	l.w.bucket[seg.Key] = object
	l.w.mu.Unlock()
	if ok && !bytes.Equal(before, object) {
		t.Errorf("%s has other bytes than before: %d, %d\n%s", seg.Key, len(before), len(object), l.w.history())
	}
	l.w.note("%s put %s (removed: %v)", l.run, seg.Key, !forget)
	if !forget {
		l.j.Remove(seg)
	}
	return true
}

// refuses reports whether the bucket refuses the key now.
func (w *world) refuses(key string) bool {
	var n int
	fmt.Sscanf(key, "%08d", &n)
	return w.refuse > 0 && n%w.refuse == 0
}

func (w *world) history() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n") + "\n" + w.disk.String()
}

// live performs random steps.
func (l *life) live(t *testing.T, steps int) {
	for range steps {
		p := l.w.rng.IntN(partitions)
		switch l.w.rng.IntN(13) {
		case 0, 1, 2, 3:
			l.track(p)
		case 4, 5:
			l.commit()
		case 6:
			l.cut(p)
		case 7, 8:
			l.frame(t, p)
		case 9:
			l.sealOpen(p)
		case 10, 11:
			l.put(t, l.w.rng.IntN(4) == 0)
		case 12:
			l.w.disk.Evict(l.w.rng)
		}
	}
}

// drain delivers everything that is left.
func (l *life) drain(t *testing.T) {
	for p := range partitions {
		l.cut(p)
		for len(l.open[p]) > 0 {
			l.frame(t, p)
		}
		l.sealOpen(p)
	}
	// On a full volume it takes several commits until there is room for all
	// frames.
	for range 1000 {
		l.commit()
		for l.put(t, false) {
		}
		l.mu.Lock()
		left := l.sealed + len(l.ready)
		l.mu.Unlock()
		if left == 0 {
			break
		}
	}
	l.commit()
	if err := l.j.Close(); err != nil {
		t.Errorf("close: %v\n%s", err, l.w.history())
	}
}

// delivered returns the events in the bucket, in the order of keys.
func (w *world) delivered(t *testing.T) (got [partitions][]int) {
	for _, key := range slices.Sorted(maps.Keys(w.bucket)) {
		r, err := gzip.NewReader(bytes.NewReader(w.bucket[key]))
		if err != nil {
			t.Fatalf("%s: %v\n%s", key, err, w.history())
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v\n%s", key, err, w.history())
		}
		for text := range strings.Lines(string(raw)) {
			var p, n int
			if _, err := fmt.Sscanf(text, "{\"p\":%d,\"n\":%d", &p, &n); err != nil || p >= partitions || text != line(p, n) || !strings.HasSuffix(key, fmt.Sprint("src", p)) {
				t.Fatalf("phantom line %q in %s\n%s", text, key, w.history())
			}
			got[p] = append(got[p], n)
		}
	}
	return got
}

// check compares the bucket with what callers were told.
func (w *world) check(t *testing.T) {
	got := w.delivered(t)
	drawn := map[string]bool{}
	for key := range w.bucket {
		id, _, _ := strings.Cut(key, "-")
		if drawn[id] {
			t.Errorf("id %s is in two keys\n%s", id, w.history())
			return
		}
		drawn[id] = true
	}
	for p := range partitions {
		seen := map[int]bool{}
		for i, n := range got[p] {
			if seen[n] {
				t.Errorf("event %d/%d is delivered twice\n%s", p, n, w.history())
				return
			}
			if seen[n] = true; i > 0 && n < got[p][i-1] {
				t.Errorf("event %d/%d comes after %d\n%s", p, n, got[p][i-1], w.history())
				return
			}
		}
		for n := range w.acked[p] {
			if !seen[n] {
				t.Errorf("event %d/%d is lost\n%s", p, n, w.history())
				return
			}
		}
	}
}

// history runs lives that end in a crash, and a last one that ends in Close.
func history(t *testing.T, seed uint64, seen *points) (deaths, copied int64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(rng, seed)
	w.points = seen
	w.fileSize = [...]int64{1, 300, 1500, 6000, 0}[rng.IntN(5)]
	w.ahead = [...]int64{0, 100, 2000, 20_000}[rng.IntN(4)]
	w.rewrite = [...]int64{0, 1, 5000}[rng.IntN(3)]
	w.refuse = [...]int{0, 2, 5}[rng.IntN(3)]
	if rng.IntN(3) == 0 {
		w.bound(40_000 + rng.Int64N(60_000))
	}
	w.note("history -seed %d, files of %d, %d preallocated, %d rewritten per commit, one of %d refused", seed, w.fileSize, w.ahead, w.rewrite, w.refuse)
	for range 1 + rng.IntN(4) {
		if rng.IntN(2) == 0 { // readers see the disk instead of the page cache
			w.disk.Evict(rng)
		}
		if rng.IntN(3) == 0 { // one operation fails, or several in a row
			kinds := crashfs.Kinds()
			first := rng.IntN(40)
			for n := range [...]int{1, 1, 4, 12}[rng.IntN(4)] {
				w.disk.FailAt(first+n, kinds[rng.IntN(len(kinds))])
			}
		}
		if rng.IntN(2) == 0 { // the process dies in an operation
			w.disk.FailAt(rng.IntN(60), crashfs.Stop)
		}
		if rng.IntN(2) == 0 { // or while a group is being fsynced
			w.dieInSync = 1 + rng.IntN(12)
		}
		l, err := w.start(t)
		if err == nil {
			l.live(t, rng.IntN(60))
		} else {
			w.note("start: %v", err)
		}
		w.end(l, rng.IntN(2) == 0)
		deaths++
	}
	w.last(t)
	return deaths, w.cleaned
}

// bound limits the disk to capacity bytes.
func (w *world) bound(capacity int64) {
	w.disk.SetCapacity(capacity)
	w.reserve = capacity / 8
	w.fileSize = min(cmp.Or(w.fileSize, capacity/8), capacity/8)
	w.note("a volume of %d bytes with a reserve of %d", capacity, w.reserve)
}

// newWorld returns a world before its first life.
func newWorld(rng *rand.Rand, seed uint64) *world {
	w := &world{rng: rng, disk: crashfs.New(seed), bucket: map[string][]byte{}}
	for p := range w.acked {
		w.acked[p] = map[int]bool{}
	}
	return w
}

// end ends a life by a kill or a power cut.
func (w *world) end(l *life, kill bool) {
	var next *crashfs.FS
	how := "power cut"
	if kill {
		how = "kill"
	}
	if w.points != nil {
		w.points.add(how, w.trail)
	}
	w.note("--- %s", how)
	if w.disk.Stop(); kill {
		next = w.disk.Kill()
	} else {
		next = w.disk.Crash(w.rng)
	}
	if l != nil {
		l.j.Close()
		w.cleaned += l.j.Copied()
	}
	w.disk = next
}

// last is a life that ends in Close. It must deliver everything.
func (w *world) last(t *testing.T) {
	w.dieInSync, w.refuse = 0, 0
	l, err := w.start(t)
	if err != nil {
		t.Fatalf("start: %v\n%s", err, w.history())
	}
	l.drain(t)
	w.cleaned += l.j.Copied()
	w.check(t)
	if left, err := w.disk.Dir().List(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v\n%s", left, err, w.history())
	}
}

// Given random lives that end in kills and power cuts, when a last life has
// delivered everything, then each acknowledged event is in exactly one object,
// in order. No object has other lines, no key had two contents, and no file is
// left.
func TestCrashes(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		history(t, *seed, nil)
		return
	}
	var deaths, histories, copied, cleaned atomic.Int64
	seen := &points{seen: map[uint64]bool{}}
	t.Cleanup(func() {
		t.Logf("%d crashes in %d histories, at %d different points; %d histories copied %d bytes of live records",
			deaths.Load(), histories.Load(), len(seen.seen), cleaned.Load(), copied.Load())
		if deaths.Load() >= 1000 && cleaned.Load() < deaths.Load()/100 {
			t.Errorf("only %d histories copied live records", cleaned.Load())
		}
	})
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(worker), func(own *testing.T) {
			own.Parallel()
			for deaths.Load() < int64(*crashes) && !t.Failed() {
				died, bytes := history(own, *first-1+uint64(histories.Add(1)), seen)
				deaths.Add(died)
				if copied.Add(bytes); bytes > 0 {
					cleaned.Add(1)
				}
			}
		})
	}
}
