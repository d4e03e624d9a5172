package s3sink_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// ledger records every event of a day and the result of its Track, and decides
// which events must or may be in the bucket.
type ledger struct {
	durability s3sink.Durability

	mu     sync.Mutex
	all    [sourcesOfDay][]*dayEvent
	life   []*dayEvent          // events of the running process
	bodies map[string][2]string // checksum and length of each body, by key

	noRoom atomic.Bool // the running process refused an event with ErrBufferFull
}

type dayEvent struct {
	source, n int
	line      string
	made, at  time.Time // when Track was called, and when it returned
	fate      dayFate
	promised  bool // the event must be in the bucket
}

// dayFate is the result of Track for one event.
type dayFate int

const (
	calling dayFate = iota
	refused         // the event must not be in the bucket
	unknown         // the event may be in the bucket
	taken
)

func newLedger(durability s3sink.Durability) *ledger {
	return &ledger{durability: durability, bodies: map[string][2]string{}}
}

// event returns the next event of a source.
func (l *ledger) event(source int, text string) *dayEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &dayEvent{source: source, n: len(l.all[source]), made: time.Now()}
	e.line = fmt.Sprintf(`{"source":%d,"n":%d,"text":"%s"}`, source, e.n, text)
	l.all[source] = append(l.all[source], e)
	l.life = append(l.life, e)
	return e
}

// told records the result of Track for e, and fails the test if Track must not
// return err. It reports whether the sink is still open.
func (l *ledger) told(t *testing.T, e *dayEvent, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.at = time.Now()
	if errors.Is(err, s3sink.ErrBufferFull) {
		l.noRoom.Store(true)
	}
	var spool *s3sink.SpoolError
	switch {
	case err == nil:
		e.fate, e.promised = taken, l.durability == s3sink.SyncEach
	case errors.Is(err, s3sink.ErrOutcomeUnknown) && l.durability == s3sink.SyncEach:
		e.fate = unknown
	case errors.Is(err, s3sink.ErrClosed):
		e.fate = refused
		return false
	case errors.Is(err, s3sink.ErrBufferFull), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &spool) && l.durability == s3sink.SyncEach:
		e.fate = refused
	default:
		t.Errorf("Track: %v", err)
	}
	return true
}

// closed records that the process has ended in order: every event that Track
// accepted must be delivered.
func (l *ledger) closed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.life {
		e.promised = e.fate == taken
	}
	l.life = nil
}

// crashed records that the process ended at the time at. synced is the time of
// its last commit, and trouble is the last time that the disk failed or was
// slow.
func (l *ledger) crashed(at, synced, trouble time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.life {
		if e.fate != taken || l.durability == s3sink.SyncEach {
			continue
		}
		covered := e.at.Add(s3sink.DefaultCommitInterval)
		// The commit that ended at synced began earlier. A slow commit has up to
		// 8 syncs: two for each of two files, in each of two attempts.
		e.promised = covered.Before(at) && trouble.Before(e.at) || covered.Add(8*slowestSync).Before(synced)
	}
	l.life = nil
}

// flows checks that the sink accepts events.
func (l *ledger) flows(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.life {
		if e.fate == refused && time.Since(e.at) < time.Minute {
			t.Errorf("all is well, but an event was refused %v ago", time.Since(e.at))
			break
		}
	}
}

// active reports whether a commit is overdue: since the last commit, more than
// two CommitIntervals ago, Track returned for an event without refusing it.
func (l *ledger) active(synced time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.life {
		if e.fate > refused && e.at.After(synced) && time.Since(e.at) > 2*s3sink.DefaultCommitInterval {
			return true
		}
	}
	return false
}

// sent records the checksum and length of a PUT. They are the same in every PUT
// of a key.
func (l *ledger) sent(t *testing.T, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, body := r.URL.Path, [2]string{r.Header.Get("X-Amz-Checksum-Crc32"), fmt.Sprint(r.ContentLength)}
	if before, ok := l.bodies[key]; ok && before != body || body[0] == "" {
		t.Errorf("%s was sent as %v, now it is %v", key, before, body)
	}
	l.bodies[key] = body
}

func (l *ledger) count() (refusals, unknowns, takens, promises int) {
	for _, all := range l.all {
		for _, e := range all {
			switch e.fate {
			case refused:
				refusals++
			case unknown:
				unknowns++
			case taken:
				takens++
			}
			if e.promised {
				promises++
			}
		}
	}
	return refusals, unknowns, takens, promises
}

// check compares the bucket with the ledger.
func (l *ledger) check(t *testing.T, server *s3sinktest.Server) {
	var seen [sourcesOfDay]map[int]bool
	var last [sourcesOfDay]int
	for i := range seen {
		seen[i], last[i] = map[int]bool{}, -1
	}
	all := server.Objects(s3sinktest.Bucket)
	slices.SortFunc(all, func(a, b s3sinktest.Object) int { return cmp.Compare(uuidOf(a.Key), uuidOf(b.Key)) })
	var run string
	for _, o := range all { // in the order of the ids in their keys, which a wrong clock does not change
		if is := o.Metadata["s3sink-run"]; is < run {
			t.Errorf("%s is of run %s, and behind an object of run %s", o.Key, is, run)
		} else {
			run = is
		}
		o.Writes = 1 // without CreateOnly a key may be written more than once
		day := dayOf(t, o.Key)
		for _, line := range unpack(t, o).lines {
			var source, n int
			if _, err := fmt.Sscanf(line, `{"source":%d,"n":%d,`, &source, &n); err != nil || n >= len(l.all[source]) {
				t.Fatalf("%s: nobody made %s", o.Key, line)
			}
			e := l.all[source][n]
			switch {
			case e.line != line || !strings.Contains(o.Key, fmt.Sprintf("/%c/", 'a'+source)):
				t.Errorf("%s: nobody made %s", o.Key, line)
			case day.After(e.at) || !day.Add(24*time.Hour).After(e.made):
				t.Errorf("%s: %d/%d was tracked at %v", o.Key, source, n, e.made)
			case e.fate == refused:
				t.Errorf("%d/%d was refused and is there", source, n)
			case seen[source][n]:
				t.Errorf("%d/%d is there twice", source, n)
			case n < last[source]:
				t.Errorf("%d/%d is behind %d", source, n, last[source])
			}
			seen[source][n], last[source] = true, n
		}
	}
	for source, all := range l.all {
		for _, e := range all {
			if t.Failed() {
				return
			}
			if e.promised && !seen[source][e.n] {
				t.Errorf("%d/%d is lost", source, e.n)
			}
		}
	}
}

// dayOf returns the received-day that a key names.
func dayOf(t *testing.T, key string) time.Time {
	t.Helper()
	ms, err := strconv.ParseInt(path.Base(path.Dir(key)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(ms).UTC()
}
