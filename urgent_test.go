package s3sink_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

var closes = flag.Int("closes", 2, "runs of each row of TestClose_S3RecoversWhileItWaits")

// failure is a way for S3 to fail, with its begin and its end.
type failure struct {
	name  string
	begin func(*s3sinktest.Server, *blackHole)
	end   func(*s3sinktest.Server, *blackHole)
}

func clearFaults(s *s3sinktest.Server, _ *blackHole) { s.ClearFaults() }

var (
	refusedConnections = failure{"connections are refused",
		func(s *s3sinktest.Server, _ *blackHole) { s.Refuse(true) },
		func(s *s3sinktest.Server, _ *blackHole) { s.Refuse(false) }}
	throttled = failure{"503 SlowDown",
		func(s *s3sinktest.Server, _ *blackHole) {
			s.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown"})
		}, clearFaults}
	hanging = failure{"requests hang", // a request that hangs never gets an answer, also after the end of the failure
		func(s *s3sinktest.Server, _ *blackHole) {
			s.Inject(s3sinktest.Fault{Operation: "PutObject", Stall: true})
		}, clearFaults}
	lostAnswers = failure{"answers are lost", // the objects are stored
		func(s *s3sinktest.Server, _ *blackHole) {
			s.Inject(s3sinktest.Fault{Operation: "PutObject", LoseResponse: true})
		}, clearFaults}
	cutNetwork = failure{"the network is cut",
		func(_ *s3sinktest.Server, n *blackHole) { n.cut(true) },
		func(_ *s3sinktest.Server, n *blackHole) { n.cut(false) }}
)

// Given uploads that have failed for a while, when S3 recovers at least 3
// seconds before the ctx of Close ends, then no event is lost and no object is
// stored twice.
func TestClose_S3RecoversWhileItWaits(t *testing.T) {
	t.Parallel()
	const second = time.Second
	for _, row := range []struct {
		failure failure
		outage  time.Duration // duration of the outage before Close
		grace   time.Duration // duration of the ctx of Close
		back    time.Duration // from Close to the end of the outage; 0: random, at least 3 s before ctx ends
	}{
		{refusedConnections, 15 * second, 25 * second, 2 * second},
		{refusedConnections, 60 * second, 25 * second, 2 * second},
		{refusedConnections, 150 * second, 25 * second, 2 * second},
		{hanging, 60 * second, 25 * second, 2 * second},
		{cutNetwork, 1 * second, 10 * second, 1 * second},
		{refusedConnections, 60 * second, 25 * second, 22 * second},
		{hanging, 60 * second, 25 * second, 22 * second},
		{refusedConnections, 150 * second, 25 * second, 0},
		{throttled, 60 * second, 25 * second, 0},
		{throttled, time.Hour, 25 * second, 0},
		{hanging, 15 * second, 25 * second, 0},
		{hanging, 150 * second, 25 * second, 0},
		{lostAnswers, 60 * second, 25 * second, 0},
		{cutNetwork, 60 * second, 25 * second, 0},
		{cutNetwork, 150 * second, 10 * second, 0},
	} {
		name := fmt.Sprintf("%s for %v, Close(%v), well after %v", row.failure.name, row.outage, row.grace, row.back)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lost, most int64
			for range *closes {
				back := row.back
				if back == 0 {
					back = rand.N(row.grace - 3*second)
				}
				dropped, attempts := closeInOutage(t, row.failure, row.outage, row.grace, back)
				if dropped > 0 {
					lost++
				}
				most = max(most, attempts)
			}
			t.Logf("%d of %d runs lost events; at most %d attempts after Close", lost, *closes, most)
			if lost > 0 {
				t.Errorf("%d of %d runs lost events, although S3 was well for at least 3 s", lost, *closes)
			}
			if allowed := int64(row.grace/second)*3 + 200; most > allowed {
				t.Errorf("%d attempts after Close, want %d at most", most, allowed)
			}
		})
	}
}

// closeInOutage lets S3 fail, closes a sink, and ends the outage after back. It
// returns how many events were lost, and how many attempts Close made.
func closeInOutage(t *testing.T, f failure, outage, grace, back time.Duration) (dropped, attempts int64) {
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		n := newBlackHole(cfg.HTTPClient)
		cfg.MaxObjectAge = max(time.Second, outage/30)
		cfg.CreateOnly = s3sink.CreateOnlyOn
		sink := open(t, cfg)
		var sources []*s3sink.Source
		for i := range 3 {
			src, err := sink.Source(fmt.Sprint("source-", i))
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, src)
		}
		track := func(d time.Duration) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(d / 60) {
				for _, src := range sources {
					mustTrack(t, src, struct{}{})
				}
			}
		}
		track(10 * time.Second)
		f.begin(server, n)
		track(outage)
		time.Sleep(rand.N(time.Second)) // in any phase of a backoff
		before := sink.Stats().Attempts
		healed := time.AfterFunc(back, func() { f.end(server, n) })
		defer healed.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), grace)
		defer cancel()
		err := sink.Close(ctx)
		st := sink.Stats()
		if (err == nil) != (st.Dropped == 0) {
			t.Errorf("Close: %v, %+v", err, st)
		}
		if got := int64(len(lines(t, server, s3sinktest.Bucket))); got < st.Delivered || st.Dropped == 0 && got != st.Accepted {
			t.Errorf("%d events are stored: %+v", got, st)
		}
		dropped, attempts = st.Dropped, st.Attempts-before
	})
	return dropped, attempts
}

// blackHole is a network below HTTP between a client and a server. While it is
// cut, nothing gets through, and neither side gets an error. Connections that
// existed stay dead.
type blackHole struct {
	mu    sync.Mutex
	isCut bool
	conns []*deadConn
}

// newBlackHole puts a network between a client and its server.
func newBlackHole(client *http.Client) *blackHole {
	n := new(blackHole)
	transport := client.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if n.dead() {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &deadConn{Conn: conn, closed: make(chan struct{})}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.conns = append(n.conns, c)
		return c, nil
	}
	return n
}

func (n *blackHole) dead() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.isCut
}

func (n *blackHole) cut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isCut = cut
	for _, c := range n.conns {
		c.kill()
	}
	n.conns = nil
}

// deadConn is a connection that a network can kill.
type deadConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}

	mu   sync.Mutex
	dead bool
}

func (c *deadConn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
}

func (c *deadConn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// Read returns no data from a dead connection.
func (c *deadConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.isDead() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

// Write to a dead connection succeeds, as if a buffer took the bytes.
func (c *deadConn) Write(p []byte) (int, error) {
	if c.isDead() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *deadConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// limiter is the request limit of S3: it answers SlowDown to requests above
// perSecond.
type limiter struct {
	perSecond int

	mu       sync.Mutex
	tokens   float64
	filled   time.Time
	requests int
	busiest  int       // most requests in one second
	second   time.Time // start of the second that inSecond counts
	inSecond int
}

// exceeded counts a request, and reports whether it exceeds the limit.
func (l *limiter) exceeded(*http.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.second) >= time.Second {
		l.second, l.inSecond = now, 0
	}
	l.requests++
	l.inSecond++
	l.busiest = max(l.busiest, l.inSecond)
	l.tokens = min(l.tokens+now.Sub(l.filled).Seconds()*float64(l.perSecond), float64(l.perSecond)/10)
	l.filled = now
	if l.tokens < 1 {
		return true
	}
	l.tokens--
	return false
}

// The fleet of TestClose_FleetAgainstThrottlingS3: its sinks are closed at
// once, and fleetLimit is the number of requests per second that S3 accepts.
const (
	fleetSinks   = 200
	fleetObjects = 10 // objects of each sink
	fleetLimit   = 100
)

// Given a fleet whose sinks are closed at the same moment, when S3 accepts 100
// requests per second and answers SlowDown to the others, then everything is
// delivered: 2,000 objects take 20 s, and Close has 60 s. An object costs at
// most 5 requests, and a sink sends at most 3 per second.
func TestClose_FleetAgainstThrottlingS3(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxObjectEvents = 1
		cfg.MaxMemory = 2 << 20
		cfg.MaxEventBytes = 1 << 10
		throttled.begin(server, nil)
		var sinks []*s3sink.Sink
		for range fleetSinks {
			cfg.HTTPClient = server.HTTPClient()
			sink := open(t, cfg)
			for range fleetObjects {
				mustTrack(t, sink, struct{}{})
			}
			sinks = append(sinks, sink)
		}
		time.Sleep(10 * time.Second)
		limit := &limiter{perSecond: fleetLimit}
		server.ClearFaults()
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown", Match: limit.exceeded})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		var all sync.WaitGroup
		for _, sink := range sinks {
			all.Go(func() {
				if err := sink.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		const objects = fleetSinks * fleetObjects
		if n := len(server.Objects(s3sinktest.Bucket)); n != objects {
			t.Errorf("%d objects, want %d", n, objects)
		}
		t.Logf("%d objects in %v: %d requests, %d in the busiest second", objects, time.Since(began), limit.requests, limit.busiest)
		if limit.requests > 5*objects || limit.busiest > 3*fleetSinks {
			t.Errorf("%d requests for %d objects, %d in one second, want at most 5 for each and %d", limit.requests, objects, limit.busiest, 3*fleetSinks)
		}
	})
}
