package spool_test

import (
	"bytes"
	"compress/flate"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

var damages = flag.Int("damages", 300, "how many spools TestDamage damages")

// event is one that was tracked.
type event struct{ p, n int }

// injury is what was done to a file.
type injury struct {
	from, to int64
	how      string
}

// injure damages a file in up to three places. What is cut off or out may be
// whole records.
func injure(rng *rand.Rand, data []byte, records []spool.Parsed) (after []byte, done []injury) {
	after = bytes.Clone(data)
	for range 1 + rng.IntN(3) {
		from := rng.Int64N(int64(len(data)))
		to := min(int64(len(data)), from+1+rng.Int64N([...]int64{1, 16, 200, 3000}[rng.IntN(4)]))
		how := [...]string{"flip", "zero", "noise", "end", "gap"}[rng.IntN(5)]
		switch how {
		case "flip":
			to = from + 1
			after[from] ^= 1 << rng.IntN(8)
		case "zero":
			clear(after[from:to])
		case "noise":
			for i := from; i < to; i++ {
				after[i] = byte(rng.Uint32())
			}
		}
		done = append(done, injury{from, to, how})
		if how == "end" || how == "gap" { // offsets are others now: it is the last one
			if n := len(records); n > 0 && rng.IntN(2) == 0 {
				i := rng.IntN(n)
				from, to = records[i].From, records[i+rng.IntN(n-i)].To
			}
			if how == "end" {
				to = int64(len(data))
			}
			done[len(done)-1] = injury{from, to, how}
			return slices.Delete(after, int(from), int(to)), done
		}
	}
	return after, done
}

// eventsIn returns the events of whole lines.
func eventsIn(lines string) (all []event) {
	for text := range strings.Lines(lines) {
		var e event
		if _, err := fmt.Sscanf(text, "{\"p\":%d,\"n\":%d", &e.p, &e.n); err == nil && text == line(e.p, e.n) {
			all = append(all, e)
		}
	}
	return all
}

// inflate returns what there is in compressed bytes, as far as they go.
func inflate(payload []byte) string {
	raw, _ := io.ReadAll(flate.NewReader(bytes.NewReader(payload)))
	return string(raw)
}

// maim damages some files, and returns the events that are not touched: all
// records that have them are as they were. Nothing is said of records that a
// commit may not have covered, where they are behind damage.
func (w *world) maim(t *testing.T, seed uint64) (whole map[event]bool) {
	rng := rand.New(rand.NewPCG(seed, 5))
	entries, err := w.disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	whole = map[event]bool{}
	hurt := map[event]bool{}
	injured := false // the file behind
	for i, e := range slices.Backward(entries) {
		data, _ := w.disk.ReadFile(e.Name)
		if len(data) == 0 {
			continue
		}
		records := spool.ParseRecords(data)
		var done []injury
		if rng.IntN(len(entries)) <= 1 && (w.shut || i < len(entries)-1 && !injured) { // else a seal may be gone as if it had never been
			var after []byte
			after, done = injure(rng, data, records)
			w.disk.Put(e.Name, 0, after)
			w.note("damage to %s of %d: %v", e.Name, len(data), done)
		}
		open := i == len(entries)-1 || injured
		injured = len(done) > 0
		first, certain, groups := int64(1<<62), int64(0), 0
		for _, d := range done {
			first = min(first, d.from)
		}
		hit := func(r spool.Parsed) bool {
			return slices.ContainsFunc(done, func(d injury) bool { return d.from < r.To && r.From < d.to })
		}
		for _, r := range records {
			if r.Kind != "group" {
				continue
			}
			if groups++; groups > 1 && !hit(r) { // the first one says nothing of the file
				certain = r.From
			}
		}
		for _, r := range records {
			events := eventsIn(string(r.Data))
			if r.Kind == "frame" {
				events = eventsIn(inflate(r.Data))
			}
			touched := hit(r) || open && first < r.To && r.To > certain
			for _, e := range events {
				if whole[e] = true; touched {
					hurt[e] = true
				}
			}
		}
	}
	maps.DeleteFunc(whole, func(e event, _ bool) bool { return hurt[e] })
	w.maimed = true
	return whole
}

// copied checks that copies are what is in the damaged files, and returns the
// events in those that are parts of objects, and all of them by name.
func (w *world) copied(t *testing.T, image *crashfs.FS) (events []event, all map[string][]byte) {
	all = map[string][]byte{}
	list, err := w.disk.Dir().List()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(e vfs.Entry) bool { return e.Name == "corrupt" && e.Type == fs.ModeDir }) {
		return nil, all
	}
	sub, err := w.disk.Dir().Sub("corrupt")
	if err != nil {
		t.Fatal(err)
	}
	copies, err := sub.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range copies {
		data, _ := w.disk.ReadFile("corrupt/" + c.Name)
		all[c.Name] = data
		var off int64
		if name, rest, ok := strings.Cut(c.Name, ".journal-"); !ok {
			if !strings.HasSuffix(c.Name, ".gz.part") {
				t.Errorf("%s is no copy", c.Name)
			}
			events = append(events, eventsIn(inflate(data[min(10, len(data)):]))...)
		} else if _, err := fmt.Sscanf(rest, "%d.bin", &off); err != nil {
			t.Errorf("%s is no copy", c.Name)
		} else if image == nil {
			continue
		} else if was, ok := image.ReadFile(name + ".journal"); !ok || !bytes.HasPrefix(was[min(off, int64(len(was))):], data) {
			t.Errorf("%s is not what is at %d\n%s", c.Name, off, w.history())
		}
	}
	return events, all
}

// damage is lives that end well but for what somebody does to the disk then.
func damage(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(rng, seed)
	w.fileSize = [...]int64{1, 1500, 6000, 0}[rng.IntN(4)]
	w.shut = rng.IntN(2) == 0
	w.note("-seed %d, files of %d", seed, w.fileSize)
	for range 1 + rng.IntN(2) {
		l, err := w.start(t)
		if err != nil {
			t.Fatal(err)
		}
		l.live(t, rng.IntN(150))
		if err := l.j.Close(); err != nil {
			t.Fatal(err)
		}
		w.disk = w.disk.Kill()
	}
	before := map[event]bool{}
	for p, all := range w.delivered(t) {
		for _, n := range all {
			before[event{p, n}] = true
		}
	}
	w.found = nil
	whole := w.maim(t, seed)
	w.shut = false
	image := w.disk.Kill() // only to be read
	w.disk = image.Kill()
	var cut map[string][]byte
	if rng.IntN(2) == 0 { // recovery is cut off
		w.disk.FailAt(rng.IntN(80), crashfs.Stop)
		l, err := w.start(t)
		if err == nil {
			l.live(t, rng.IntN(20))
		}
		w.end(l, rng.IntN(2) == 0)
		_, cut = w.copied(t, nil) // one may be cut off as well
	}
	l, err := w.start(t)
	if err != nil {
		t.Fatalf("start: %v\n%s", err, w.history())
	}
	l.drain(t)

	times := map[event]int{}
	for p, all := range w.delivered(t) {
		for _, n := range all {
			e := event{p, n}
			if times[e]++; times[e] > 1 && !before[e] {
				t.Errorf("event %v is there twice\n%s", e, w.history())
			}
		}
	}
	aside, all := w.copied(t, image)
	for e := range whole {
		if times[e] == 0 && !slices.Contains(aside, e) {
			t.Errorf("event %v is lost, and was not damaged\n%s", e, w.history())
			return
		}
	}
	for name := range cut {
		if _, ok := all[name]; !ok {
			t.Errorf("the copy %s is gone", name)
		}
	}
	if kept := slices.ContainsFunc(w.found, func(f *spool.Recovered) bool { return f.CopiedBytes > 0 }); kept && len(all) == 0 {
		t.Errorf("there is no copy\n%s", w.history())
	}
	left, err := w.disk.Dir().List()
	left = slices.DeleteFunc(left, func(e vfs.Entry) bool { return e.Name == "corrupt" })
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v\n%s", left, err, w.history())
	}
}

// Whatever is damaged of a spool: what is not is delivered, once unless it was
// before, nothing is invented, no key has two contents, what is damaged is kept,
// and nothing else stays behind.
func TestDamage(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		damage(t, *seed)
		return
	}
	for n := range uint64(*damages) {
		if damage(t, n+1); t.Failed() {
			return
		}
	}
}
