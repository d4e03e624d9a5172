package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// States of an event in the ledger.
const (
	never  = iota // Track has not taken it
	may           // it may be delivered: no promise applies, or the outcome is unknown
	must          // it was acknowledged with a promise: it must be delivered
	seen          // it is in an object
	counts        // number of states
)

// ledger holds the events that the children of a lot have reported.
type ledger struct {
	seed   uint64
	events map[place][]byte // states, by number
	acked  int64
}

type place struct {
	source byte
	life   uint32
}

// add records the events of a life. The kill or the power cut began at the time at,
// when cut records had been read. power is true if the page cache was lost too.
func (g *ledger) add(number uint32, d s3sink.Durability, records []record, cut int, at time.Time, power bool) {
	promised := at.Add(-2*commitInterval - stalls(records[:cut], at)) // events acknowledged before it must be delivered
	if d == s3sink.SyncInterval && slices.ContainsFunc(records[:cut], func(r record) bool { return r.kind == closed }) {
		promised, power = at, false // Close has committed
	}
	var onDisk time.Time // events acknowledged before it are on disk
	for _, r := range records[:cut] {
		if r.kind == synced {
			onDisk = r.time()
		}
	}
	for i, r := range records {
		state := byte(may)
		switch {
		case r.kind != acked && r.kind != unknown:
			continue
		case r.kind == unknown:
		case d == s3sink.SyncEach:
			if i < cut || !power {
				state = must
			}
		case i < cut && (!r.at.After(promised) && !power || !r.at.Round(0).After(onDisk)):
			state = must // at a power cut the disk may be late, and only synced records count
		}
		p := place{r.source, number}
		for len(g.events[p]) < int(r.n) { // numbers rise by one
			g.events[p] = append(g.events[p], never)
		}
		g.events[p] = append(g.events[p], state)
		if state == must {
			g.acked++
		}
	}
}

// time returns the time in a synced record. Its number holds the low 32 bits of a
// time in microseconds, shortly before the record was read.
func (r *record) time() time.Time {
	age := uint32(r.at.UnixMicro()) - r.n
	return time.UnixMicro(r.at.UnixMicro() - int64(age))
}

// stalls returns the total time in which the child or the parent did not run. The
// promise of SyncInterval is about time, and cannot be kept by a process that the
// machine does not run.
func stalls(records []record, end time.Time) (sum time.Duration) {
	var last time.Time
	for _, r := range append(slices.Clip(records), record{kind: alive, at: end}) {
		if r.kind != alive && r.kind != started {
			continue
		}
		if gap := r.at.Sub(last); !last.IsZero() && gap > 2*heartbeat {
			sum += gap
		}
		last = r.at
	}
	return sum
}

// tally is the result of lots.
type tally struct {
	Lives, Acknowledged, Delivered, Objects                 int64
	Lost, Doubled, Phantom, Unreadable, Disorder, Different int64
	Left, Trouble                                           int64
}

func (t *tally) add(o tally) {
	t.Lives += o.Lives
	t.Acknowledged += o.Acknowledged
	t.Delivered += o.Delivered
	t.Objects += o.Objects
	t.Lost += o.Lost
	t.Doubled += o.Doubled
	t.Phantom += o.Phantom
	t.Unreadable += o.Unreadable
	t.Disorder += o.Disorder
	t.Different += o.Different
	t.Left += o.Left
	t.Trouble += o.Trouble
}

func (t *tally) bad() bool {
	return t.Lost+t.Doubled+t.Phantom+t.Unreadable+t.Disorder+t.Different+t.Left+t.Trouble > 0
}

func (t tally) String() string {
	s := fmt.Sprintf("acknowledged %d delivered %d in %d objects, lost %d doubled %d phantom %d unreadable %d",
		t.Acknowledged, t.Delivered, t.Objects, t.Lost, t.Doubled, t.Phantom, t.Unreadable)
	for _, other := range []struct {
		name string
		n    int64
	}{{"out of order", t.Disorder}, {"different bytes", t.Different}, {"left in the spool", t.Left}, {"trouble", t.Trouble}} {
		if other.n > 0 {
			s += fmt.Sprintf(" %s %d", other.name, other.n)
		}
	}
	return s
}

// check compares the objects of a bucket, and the requests to it, with the ledger.
// The keys of a source rise in the order of its events.
func (g *ledger) check(objects []s3sinktest.Object, requests []s3sinktest.Request, createOnly bool, t *tally, complain func(string, ...any)) {
	last := map[byte]uint64{}
	for _, o := range objects {
		t.Objects++
		lines, err := o.Lines()
		if err != nil || len(lines) == 0 {
			t.Unreadable++
			complain("unreadable: %s: %v", o.Key, err)
			continue
		}
		if createOnly && o.Writes > 1 {
			t.Doubled++
			complain("%s was stored %d times", o.Key, o.Writes)
		}
		for i, text := range lines {
			where := fmt.Sprintf("%s (%v), line %d", o.Key, o.Metadata, i)
			var p place
			var n uint32
			if _, err := fmt.Sscanf(text, `{"source":%d,"life":%d,"n":%d,`, &p.source, &p.life, &n); err != nil ||
				!bytes.Equal([]byte(text), line(g.seed, int(p.source), p.life, n)) {
				t.Phantom++
				complain("phantom: no such event was made: %.100s in %s", text, where)
				continue
			}
			if !strings.Contains(o.Key, "/"+sourceID(int(p.source))+"/") {
				t.Phantom++
				complain("phantom: of source %d in %s", p.source, where)
				continue
			}
			if len(g.events[p]) == int(n) {
				g.events[p] = append(g.events[p], may) // the child was killed before it wrote the record
			}
			switch {
			case len(g.events[p]) < int(n) || g.events[p][n] == never:
				t.Phantom++
				complain("phantom: %.60s, Track did not take it, in %s", text, where)
				continue
			case g.events[p][n] == seen:
				t.Doubled++
				complain("twice: %.60s, again in %s", text, where)
				continue
			}
			g.events[p][n] = seen
			t.Delivered++
			at := uint64(p.life)<<32 | uint64(n)
			if before, ok := last[p.source]; ok && at < before {
				t.Disorder++
				complain("out of order: %.60s is after life %d n %d in %s", text, before>>32, uint32(before), where)
			}
			last[p.source] = at
		}
	}
	for p, states := range g.events {
		for n, state := range states {
			if state == must {
				t.Lost++
				complain("lost: source %d life %d n %d of %d", p.source, p.life, n, len(states))
			}
		}
	}
	t.Acknowledged += g.acked
	sent := map[string]string{}
	for _, r := range requests {
		if r.Operation != "PutObject" {
			continue
		}
		sum := checksum(r.Header)
		if before, ok := sent[r.Key]; ok && before != sum {
			t.Different++
			complain("different bytes: %s was sent with checksum %s and with %s", r.Key, before, sum)
		}
		sent[r.Key] = sum
	}
}

func checksum(h http.Header) string {
	return h.Get("X-Amz-Checksum-Crc32") + " " + h.Get("X-Amz-Decoded-Content-Length") + h.Get("Content-Length")
}

// leftovers returns the names of the files in a drained spool, except the lock.
func leftovers(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.EqualFold(e.Name(), "lock") {
			names = append(names, e.Name())
		}
	}
	return names, err
}
