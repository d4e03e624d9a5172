package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// Given a few lots, when children are killed at random moments, then no promise is
// broken.
func TestKills(t *testing.T) {
	run(t, plan{kills: 30})
}

// Given file systems in images, when they are shut down at random moments, then no
// promise is broken.
func TestCuts(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			if why := whyUnavailable(fs); why != "" {
				t.Skipf("SKIP cuts on %s: %s", fs, why)
			}
			d, err := makeDisk(t.TempDir(), fs)
			if err != nil {
				t.Skipf("SKIP cuts on %s: %v", fs, err) // root in a container may not mount
			}
			if err := d.release(); err != nil {
				t.Fatal(err)
			}
			run(t, plan{cuts: 8, systems: []string{fs}})
		})
	}
}

// Given a volume that fills up while S3 is down, when S3 is back, then the volume
// drains.
func TestFullVolumes_Drain(t *testing.T) {
	for _, fs := range []string{"tmpfs", "ext4"} {
		t.Run(fs, func(t *testing.T) {
			if why := whyUnavailable(fs); why != "" {
				t.Skipf("SKIP full %s: %s", fs, why)
			}
			d, err := makeDisk(t.TempDir(), fs)
			if err != nil {
				t.Skipf("SKIP full %s: %v", fs, err) // root in a container may not mount
			}
			if err := d.release(); err != nil {
				t.Fatal(err)
			}
			p := plan{full: 1, systems: []string{fs}, memory: t.TempDir()}
			if err := p.fill(t.Context(), t.Output()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func run(t *testing.T, p plan) {
	p.each, p.interval, p.lot, p.jobs = true, true, 8, 4
	p.dir = t.TempDir()
	var err error
	if p.memory, err = os.MkdirTemp(cmp.Or(memoryDir(), p.dir), "s3sink-torture-test-"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(p.memory) // stays if it contains a report
	if err := p.run(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
}

// Given objects and requests with one fault each, when the oracle checks them, then
// it counts that fault: an oracle that never complains proves nothing.
func TestOracle_CountsEachFault(t *testing.T) {
	put := func(key, sum string) s3sinktest.Request {
		return s3sinktest.Request{Operation: "PutObject", Key: key, Header: http.Header{"X-Amz-Checksum-Crc32": {sum}}}
	}
	for name, tt := range map[string]struct {
		numbers []uint32 // of events in the object
		more    string   // appended after them
		writes  int
		puts    []s3sinktest.Request
		want    tally
	}{
		"no fault":         {numbers: []uint32{0, 1, 2}},
		"not reported":     {numbers: []uint32{0, 1, 2, 3}},
		"lost":             {numbers: []uint32{0, 2}, want: tally{Lost: 1}},
		"delivered twice":  {numbers: []uint32{0, 1, 1, 2}, want: tally{Doubled: 1}},
		"never tracked":    {numbers: []uint32{0, 1, 2, 9}, want: tally{Phantom: 1}},
		"other bytes":      {numbers: []uint32{0, 1, 2}, more: `{"source":0,"life":0,"n":3}` + "\n", want: tally{Phantom: 1}},
		"the wrong order":  {numbers: []uint32{0, 2, 1}, want: tally{Disorder: 1}},
		"a torn line":      {numbers: []uint32{0, 1, 2}, more: "{", want: tally{Unreadable: 1, Lost: 3}},
		"written twice":    {numbers: []uint32{0, 1, 2}, writes: 2, want: tally{Doubled: 1}},
		"sent twice":       {numbers: []uint32{0, 1, 2}, puts: []s3sinktest.Request{put("a", "1"), put("a", "1")}},
		"sent differently": {numbers: []uint32{0, 1, 2}, puts: []s3sinktest.Request{put("a", "1"), put("a", "2")}, want: tally{Different: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			g := ledger{seed: 1, events: map[place][]byte{}}
			var said []record
			for n := range uint32(3) {
				said = append(said, record{kind: acked, n: n})
			}
			g.add(0, s3sink.SyncEach, said, len(said), time.Now(), true)
			var body bytes.Buffer
			w := gzip.NewWriter(&body)
			for _, n := range tt.numbers {
				w.Write(append(line(1, 0, 0, n), '\n'))
			}
			io.WriteString(w, tt.more)
			w.Close()
			var got tally
			g.check([]s3sinktest.Object{{Key: "x/source-0/y.gz", Body: body.Bytes(), Writes: tt.writes}}, tt.puts, true, &got,
				func(format string, args ...any) { t.Logf(format, args...) })
			got.Acknowledged, got.Delivered, got.Objects = 0, 0, 0
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Given acknowledgements of a life, when it is killed or its power is cut, then
// exactly the events with a promise of that durability must be delivered.
func TestLedger_FollowsPromise(t *testing.T) {
	end := time.Now()
	ago := func(d time.Duration, n uint32) record { return record{kind: acked, n: n, at: end.Add(-d)} }
	beats := []record{{kind: alive, at: end.Add(-commitInterval)}, {kind: alive, at: end}} // a stall of commitInterval
	said := []record{ago(5*commitInterval, 0), ago(commitInterval, 1), ago(0, 2)}          // the last after the end began
	for name, tt := range map[string]struct {
		durability s3sink.Durability
		records    []record
		power      bool
		want       []byte
	}{
		"each, killed":      {s3sink.SyncEach, said, false, []byte{must, must, must}},
		"each, cut":         {s3sink.SyncEach, said, true, []byte{must, must, may}},
		"interval, cut":     {s3sink.SyncInterval, said, true, []byte{may, may, may}},
		"interval":          {s3sink.SyncInterval, said, false, []byte{must, may, may}},
		"interval, stalled": {s3sink.SyncInterval, append([]record{ago(5*commitInterval/2, 0), ago(5*commitInterval/2, 1)}, beats...), false, []byte{may, may}},
		"interval, synced":  {s3sink.SyncInterval, []record{ago(2*time.Millisecond, 0), ago(0, 1), {kind: synced, n: uint32(end.UnixMicro() - 1000), at: end}, ago(0, 2)}, true, []byte{must, may, may}},
		"interval, closed":  {s3sink.SyncInterval, append([]record{ago(0, 0), {kind: closed, at: end}}, ago(-1, 1)), true, []byte{must, may}},
	} {
		t.Run(name, func(t *testing.T) {
			g := ledger{events: map[place][]byte{}}
			g.add(7, tt.durability, tt.records, len(tt.records)-1, end, tt.power)
			if name == "interval, stalled" {
				g = ledger{events: map[place][]byte{}}
				g.add(7, tt.durability, tt.records, len(tt.records), end, tt.power)
			}
			if got := g.events[place{0, 7}]; !bytes.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Given a synced record, when it is read up to a second later, then its 32 bits give
// the exact time.
func TestRecordTime_FromLowBits(t *testing.T) {
	for _, at := range []int64{1 << 51, 1<<51 + 1<<32 - 1} {
		for _, age := range []int64{0, 5, 1 << 20} {
			r := record{kind: synced, n: uint32(at), at: time.UnixMicro(at + age)}
			if got := r.time().UnixMicro(); got != at {
				t.Errorf("%d, read %d later: %d", at, age, got)
			}
		}
	}
}
