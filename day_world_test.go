package s3sink_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// sky is the state of S3 and STS: calm, or in a storm.
type sky struct {
	server *s3sinktest.Server
	rng    *rand.Rand
	change time.Time
	began  time.Time
	storm  *storm // nil: calm
	counts map[string]int

	// A denial is independent of storms: for hours S3 refuses the objects of one
	// quiet source only.
	denies     atomic.Bool
	denyChange time.Time // when the next denial begins or this one ends
	denyEnded  time.Time

	panics   atomic.Bool   // the transport of the process panics
	damages  atomic.Bool   // the network damages every body
	urgent   time.Duration // grace periods of Close in this storm
	attempts atomic.Int64
	starts   atomic.Int64 // starts of processes
	before   [2]int64     // attempts and starts when the storm began
}

// storm is a way for S3 or STS to fail.
type storm struct {
	name  string
	total bool // nothing is delivered
	begin func(*sky)
}

// inject is a storm of one fault.
func inject(operation string, f s3sinktest.Fault) func(*sky) {
	f.Operation = operation
	return func(s *sky) { s.server.Inject(f) }
}

var storms = []storm{
	{"503", true, inject("PutObject", s3sinktest.Fault{Status: 503, Code: "SlowDown"})},
	{"refused connections", true, func(s *sky) { s.server.Refuse(true) }},
	{"reset connections", true, inject("PutObject", s3sinktest.Fault{CutAfter: 100})},
	{"no answer", true, inject("PutObject", s3sinktest.Fault{Stall: true})},
	{"late answers", true, inject("PutObject", s3sinktest.Fault{Delay: 35 * time.Second})}, // an attempt waits for little more than 30 s
	{"lost answers", true, inject("PutObject", s3sinktest.Fault{LoseResponse: true})},      // the object is stored
	{"frozen", true, func(s *sky) { s.server.Freeze(true) }},
	{"broken proxy", true, inject("", s3sinktest.Fault{Status: 502, Body: []byte(page)})},
	{"403", true, inject("PutObject", s3sinktest.Fault{Status: 403, Code: "AccessDenied", Message: "no"})},
	{"panics", true, func(s *sky) { s.panics.Store(true) }},
	{"damage", true, func(s *sky) { s.damages.Store(true) }},
	{"slow", false, inject("PutObject", s3sinktest.Fault{Delay: 8 * time.Second})},
	{"STS down", false, inject("AssumeRole", s3sinktest.Fault{Status: 503})},
	{"STS hangs", false, inject("AssumeRole", s3sinktest.Fault{Stall: true})},
	{"STS refuses", false, inject("AssumeRole", s3sinktest.Fault{Status: 403, Code: "AccessDenied"})},
	{"flaky", false, func(s *sky) { disturb(s.server, s.rng) }},
}

// oneIn matches a random request in n.
func oneIn(n int, seed uint64) func(*http.Request) bool {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 8))
	return func(*http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n) == 0
	}
}

func newSky(server *s3sinktest.Server, seed uint64) *sky {
	return &sky{server: server, rng: rand.New(rand.NewPCG(seed, 3)), counts: map[string]int{}}
}

// turn begins or ends the storm and the denial, each when it is due.
func (s *sky) turn(t *testing.T) {
	if now := time.Now(); !now.Before(s.denyChange) {
		s.deny(!s.denies.Load())
		s.denyChange = now.Add(upTo(s.rng, 2*time.Hour))
		if s.denies.Load() {
			s.denyChange = now.Add(3*time.Hour + upTo(s.rng, 12*time.Hour))
		}
	}
	if time.Now().Before(s.change) {
		return
	}
	was := s.storm
	s.clear(t)
	if was != nil || s.began.IsZero() {
		s.change = time.Now().Add(upTo(s.rng, 80*time.Minute))
		s.began = time.Now()
		return
	}
	s.begin(&storms[s.rng.IntN(len(storms))])
	s.change = s.began.Add(2*time.Minute + upTo(s.rng, 30*time.Minute))
	if s.rng.IntN(3) == 0 {
		s.change = s.began.Add(time.Hour + upTo(s.rng, 3*time.Hour))
	}
}

// passingStorm returns a random storm without deliveries that ends by itself.
func (s *sky) passingStorm() *storm {
	for {
		if storm := &storms[s.rng.IntN(len(storms))]; storm.total && storm.name != "403" && storm.name != "panics" {
			return storm
		}
	}
}

func (s *sky) begin(storm *storm) {
	s.storm = storm
	s.counts[s.storm.name]++
	s.began, s.urgent = time.Now(), 0
	s.before = [2]int64{s.attempts.Load(), s.starts.Load()}
	s.storm.begin(s)
}

// clear ends the storm. If nothing was delivered in it, clear checks that the
// attempts were few probes, one at a time: ten in the first minute and then two
// per minute, some more for each start and end of a process, and up to four per
// second while Close waits.
func (s *sky) clear(t *testing.T) {
	s.server.ClearFaults()
	s.server.Refuse(false)
	s.server.Freeze(false)
	s.panics.Store(false)
	s.damages.Store(false)
	if s.storm == nil {
		return
	}
	attempts, starts := s.attempts.Load()-s.before[0], s.starts.Load()-s.before[1]
	if most := 20 + 20*starts + 3*int64(time.Since(s.began).Minutes()) + 4*int64(s.urgent.Seconds()); s.storm.total && attempts > most {
		t.Errorf("%s for %v with %d starts: %d attempts, want %d at most", s.storm.name, time.Since(s.began), starts, attempts, most)
	}
	s.storm, s.began = nil, time.Now()
}

// deny begins or ends the refusal of the quiet source.
func (s *sky) deny(begin bool) {
	if s.denies.Swap(begin); begin {
		s.counts["quiet source denied"]++
	} else {
		s.denyEnded = time.Now()
	}
}

// allows reports whether the quiet source has not been denied for the duration
// long.
func (s *sky) allows(long time.Duration) bool {
	return !s.denies.Load() && time.Since(s.denyEnded) > long
}

// outage reports whether nothing has been delivered for the duration long.
func (s *sky) outage(long time.Duration) bool {
	return s.storm != nil && s.storm.total && time.Since(s.began) > long
}

// calm reports whether there has been no storm for the duration long.
func (s *sky) calm(long time.Duration) bool {
	return s.storm == nil && time.Since(s.began) > long
}

// wire is the network of one process.
type wire struct {
	t      *testing.T
	sky    *sky
	ledger *ledger
	base   *http.Client
	began  time.Time

	running  atomic.Int64
	refusals atomic.Int64 // 403 since the last 2xx
}

func newWire(server *s3sinktest.Server, sky *sky, ledger *ledger, t *testing.T) *wire {
	sky.starts.Add(1)
	return &wire{t: t, sky: sky, ledger: ledger, base: server.HTTPClient(), began: time.Now()}
}

func (w *wire) client() *http.Client {
	return &http.Client{Transport: w, CheckRedirect: w.base.CheckRedirect}
}

func (w *wire) hangUp() { w.base.CloseIdleConnections() }

func (w *wire) refused() bool { return w.refusals.Load() > 0 }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut {
		w.panics()
		return w.base.Transport.RoundTrip(r)
	}
	w.ledger.sent(w.t, r)
	if w.sky.denies.Load() && strings.Contains(r.URL.Path, "/"+sourceName(quietSource)+"/") {
		w.refusals.Add(1)
		if r.Body != nil {
			r.Body.Close()
		}
		return denied(r), nil
	}
	w.sky.attempts.Add(1)
	defer w.running.Add(-1)
	if n := w.running.Add(1); n > 2*s3sink.DefaultUploadConcurrency { // each upload may have a spare attempt
		w.t.Errorf("%d PUTs at once", n)
	}
	w.panics()
	body := &watchedBody{ReadCloser: r.Body}
	r.Body = body
	if w.sky.damages.Load() {
		damage(r)
	}
	res, err := w.base.Transport.RoundTrip(r)
	if body.failed.Load() {
		w.sky.attempts.Add(-1) // the disk failed, not S3: uploads of other objects continue
	}
	switch {
	case err != nil:
	case res.StatusCode == http.StatusForbidden:
		w.refusals.Add(1)
	case res.StatusCode < 300 || res.StatusCode == http.StatusPreconditionFailed:
		w.refusals.Store(0)
	}
	return res, err
}

// denied is the answer of S3 when a policy statement denies one folder.
func denied(r *http.Request) *http.Response {
	const body = "<Error><Code>AccessDenied</Code><Message>explicit deny</Message></Error>"
	return &http.Response{
		Status: "403 Forbidden", StatusCode: http.StatusForbidden, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/xml"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}
}

// watchedBody records whether a read of the body failed.
type watchedBody struct {
	io.ReadCloser
	failed atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed.Store(true)
	}
	return n, err
}

// panics panics, or ends its goroutine, in the storm of that name.
func (w *wire) panics() {
	if !w.sky.panics.Load() {
		return
	}
	if w.sky.attempts.Load()%2 == 0 {
		runtime.Goexit()
	}
	panic("a transport's bug")
}

// diskFaults makes a disk fail or be slow from time to time, and can end the
// process during an operation.
type diskFaults struct {
	// slow allows slow operations. A Track without a context holds a lock while
	// it waits for a slow disk. While other goroutines wait for that lock, the
	// clock of a bubble stands still.
	slow   bool
	change time.Time
	counts map[string]int
	waits  atomic.Int32 // slow operations that are running

	mu      sync.Mutex
	rng     *rand.Rand
	kind    string // "": none
	began   time.Time
	trouble time.Time // last time that an operation failed or was slow
	left    int       // operations until the process ends; < 0: no limit
	died    chan struct{}
	stopped time.Time
}

func newDiskFaults(seed uint64, slow bool) *diskFaults {
	return &diskFaults{slow: slow, rng: rand.New(rand.NewPCG(seed, 4)), left: -1, counts: map[string]int{}}
}

// begin attaches the faults to the disk of a new process.
func (f *diskFaults) begin(disk *crashfs.FS, died chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.died, f.left, f.stopped = died, -1, time.Time{}
	disk.Inject(f.fault)
}

// stopIn makes the process end during the n-th operation from now.
func (f *diskFaults) stopIn(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

// ended returns the time at which the process ended during an operation, or the
// current time.
func (f *diskFaults) ended() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped.IsZero() {
		return time.Now()
	}
	return f.stopped
}

// turn begins or ends a fault of the disk when it is due.
func (f *diskFaults) turn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Before(f.change) {
		return
	}
	f.began = now
	if f.kind != "" || f.change.IsZero() {
		f.kind, f.change = "", now.Add(upTo(f.rng, 80*time.Minute))
		return
	}
	kinds := []string{"full", "no sync", "some syncs fail", "no reads", "anything fails", "slow"}
	if !f.slow {
		kinds = kinds[:5]
	}
	f.kind = kinds[f.rng.IntN(len(kinds))]
	f.change = now.Add(upTo(f.rng, 15*time.Minute))
}

func (f *diskFaults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.left = "", -1
}

// since reports whether the disk failed or was slow within the duration long
// before now.
func (f *diskFaults) since(long time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kind != "" || time.Since(f.trouble) <= long
}

// dead reports whether no commit has been possible for the duration long.
func (f *diskFaults) dead(long time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return (f.kind == "full" || f.kind == "no sync") && time.Since(f.began) > long
}

// troubled returns the last time that an operation failed or was slow.
func (f *diskFaults) troubled() time.Time {
	if f.waits.Load() > 0 {
		return time.Now()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble
}

func (f *diskFaults) fault(op crashfs.Op) error {
	wait, err := f.decide(op)
	if wait > 0 {
		f.waits.Add(1)
		time.Sleep(wait)
		f.waits.Add(-1)
		f.mu.Lock()
		f.trouble = time.Now()
		f.mu.Unlock()
	}
	return err
}

// decide returns the delay and the error of an operation.
func (f *diskFaults) decide(op crashfs.Op) (wait time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		f.left, f.stopped = -1, time.Now()
		close(f.died)
		return 0, crashfs.Partly(f.rng.IntN(op.Len+1), crashfs.ErrStopped)
	}
	f.left = max(f.left-1, -1)
	wait, err = f.weather(op)
	if wait > 0 || err != nil {
		f.trouble = time.Now()
		f.counts[f.kind]++
	}
	return wait, err
}

func (f *diskFaults) weather(op crashfs.Op) (wait time.Duration, err error) {
	write := op.Call == crashfs.CallAppend || op.Call == crashfs.CallCreate
	sync := op.Call == crashfs.CallSync || op.Call == crashfs.CallSyncDir
	done := f.rng.IntN(op.Len + 2) // the effect in spite of the error, as in crashfs.Partly
	switch f.kind {
	case "full":
		if write {
			return 0, crashfs.Partly(min(done, op.Len/2), syscall.ENOSPC)
		}
	case "no sync":
		if sync {
			return 0, crashfs.Partly(done, syscall.EIO)
		}
	case "some syncs fail":
		if sync && f.rng.IntN(3) == 0 {
			return 0, crashfs.Partly(done, syscall.EIO)
		}
	case "no reads":
		if op.Call == crashfs.CallRead && f.rng.IntN(4) > 0 {
			return 0, syscall.EIO
		}
	case "anything fails":
		if f.rng.IntN(6) == 0 {
			return 0, crashfs.Partly(done, []error{syscall.EIO, syscall.EINTR, syscall.EROFS, syscall.EMFILE}[f.rng.IntN(4)])
		}
	case "slow":
		if sync && f.rng.IntN(3) == 0 {
			return upTo(f.rng, slowestSync), nil
		}
	}
	return 0, nil
}

// slowestSync is an upper bound of the time of a slow sync.
const slowestSync = 8 * time.Second

// upTo returns a random duration below most.
func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}
