package s3sinktest

import (
	"cmp"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Fault is something that goes wrong with a request. Its fields combine: the
// server reads the body, unless AnswerEarly is set, at ReadRate and as far as
// CutAfter; waits for Delay; answers with Status or handles the request; and
// loses that answer, or half of it, if LoseResponse or CutAnswer is set.
type Fault struct {
	// Operation is the name, such as "PutObject" or "AssumeRole", of the
	// requests that the fault is for. Empty means any.
	Operation string

	// Match says whether the fault is for this request; nil means yes. It gets
	// a copy whose body it may read: from the client, as far as it reads. It is
	// called from several goroutines at once, also for requests that arrive
	// when Times has run out.
	Match func(*http.Request) bool

	// Times is how many requests the fault is for. Zero means all of them,
	// until [Server.ClearFaults].
	Times int

	// Status is the answer to every request in place of handling it: no
	// signature is checked and no object is stored. Zero means 503 when Code, Message,
	// Body or AnswerEarly is set, and otherwise that the request is handled.
	Status int

	// Code and Message go into an error of the service's XML shape. Code
	// defaults to the status text without its spaces.
	Code    string
	Message string

	// Body is sent as it is in place of XML, with the type ContentType. One
	// that is empty but not nil is an answer without a body.
	Body        []byte
	ContentType string

	// Header is added to the answer. RetryAfter is sent in Retry-After, rounded
	// up to seconds. Both need Status.
	Header     http.Header
	RetryAfter time.Duration

	// LoseResponse cuts the connection in place of sending the answer. Without
	// Status the request has been handled by then, so its object is stored.
	LoseResponse bool

	// CutAnswer sends headers that promise the whole body of the answer, half
	// of the body, or of an empty one nothing, and cuts the connection. Without
	// Status the request has been handled by then. An answer to HEAD has no
	// body to cut.
	CutAnswer bool

	// AnswerEarly answers without reading the body, and then closes the
	// connection. An STS body has been read: it names the operation.
	AnswerEarly bool

	// CutAfter cuts the connection, without an answer and without storing
	// anything, once that many bytes of the body have been read, or all of a
	// shorter one. Zero does not cut.
	CutAfter int64

	// ReadRate is how many bytes of the body are read in a second. Zero means as
	// fast as they come. Bytes that the client sends faster are buffered: by the
	// operating system up to its own limits, and by [InMemory] without a bound.
	ReadRate int64

	// Delay is waited before anything else. If the client leaves, or the
	// server is closed, the request is dropped without being handled.
	Delay time.Duration

	// Stall never answers. It ends when the client leaves or the server is
	// closed; nothing is stored.
	Stall bool
}

// Inject adds a fault behind those already there. For every request the server
// takes the first fault that matches and has Times left, and only that one.
// Requests that are being handled are not affected. The server keeps f; leave
// its Body and Header alone afterwards.
func (s *Server) Inject(f Fault) { s.faults.add(f) }

// ClearFaults removes all faults. Requests that one has already caught stay
// caught.
func (s *Server) ClearFaults() { s.faults.clear() }

// answers says whether the fault replaces the handling of the request.
func (f *Fault) answers() bool {
	return f.Status != 0 || f.Code != "" || f.Message != "" || f.Body != nil || f.AnswerEarly
}

func (f *Fault) answer(c *call) answer {
	status := cmp.Or(f.Status, http.StatusServiceUnavailable)
	code := cmp.Or(f.Code, strings.ReplaceAll(http.StatusText(status), " ", ""))
	a := c.refuse(&apiError{status: status, code: code, message: f.Message})
	if f.Body != nil {
		a.code = f.Code // a proxy's page has no code unless the test gives it one
		a.body = f.Body
		a.header.Set("Content-Type", cmp.Or(f.ContentType, "application/octet-stream"))
		if f.ContentType == "" && len(f.Body) == 0 {
			a.header.Del("Content-Type")
		}
	}
	a.closes = f.AnswerEarly
	if f.RetryAfter > 0 {
		seconds := (f.RetryAfter + time.Second - 1) / time.Second
		a.header.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	maps.Copy(a.header, f.Header)
	return a
}

func (f *Fault) matches(c *call) bool {
	if f.Operation != "" && f.Operation != c.operation {
		return false
	}
	if f.Match == nil {
		return true
	}
	r := c.r.Clone(c.r.Context())
	r.Body = io.NopCloser(c.input.again())
	return f.Match(r)
}

// receive reads the body. Like wait it reports false when the request is to be
// dropped.
func (f *Fault) receive(c *call, closing <-chan struct{}) bool {
	if f.AnswerEarly {
		return true
	}
	limit := int64(maxBody + 1)
	if f.CutAfter > 0 {
		limit = f.CutAfter
	}
	if f.ReadRate > 0 && !f.crawl(c, limit, closing) {
		return false
	}
	if f.CutAfter > 0 {
		_ = c.input.fill(limit) // the connection is cut, even if the body ends early
		return false
	}
	c.readBody()
	return true
}

// crawl reads up to limit bytes of the body at the fault's rate. It takes a
// tenth of a second's worth at a time, because only by reading does it notice
// that the client has left: net/http does not watch for that before the end of
// the body.
func (f *Fault) crawl(c *call, limit int64, closing <-chan struct{}) bool {
	step := max(f.ReadRate/10, 1)
	start := time.Now()
	for read := int64(0); read < limit; {
		err := c.input.fill(min(read+step, limit))
		read = int64(c.input.read.Len())
		due := time.Duration(float64(read) / float64(f.ReadRate) * float64(time.Second))
		if !pause(time.Until(start.Add(due)), c.r.Context().Done(), closing) {
			return false
		}
		if err != nil {
			break
		}
	}
	return true
}

// wait holds the request back. It reports false when the request is to be
// dropped: by returning normally instead, the handler would send a 200 that
// can still win a race with the client's deadline.
func (f *Fault) wait(c *call, closing <-chan struct{}) bool {
	if f.Stall {
		select {
		case <-c.r.Context().Done():
		case <-closing:
		}
		return false
	}
	return pause(f.Delay, c.r.Context().Done(), closing)
}

// pause waits for d. It reports false when it was cut short.
func pause(d time.Duration, gone, closing <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return false
	case <-closing:
		return false
	}
}

// faultQueue holds the injected faults in order.
type faultQueue struct {
	mu      sync.Mutex
	pending []*pendingFault
}

type pendingFault struct {
	Fault
	left int // requests it is still for, when Times is set
}

func (q *faultQueue) add(f Fault) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = append(q.pending, &pendingFault{Fault: f, left: f.Times})
}

func (q *faultQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = nil
}

// take returns the fault for this request; without one, a fault that does
// nothing. Match runs outside the lock, so that it may call the server; hence
// the second look in use.
func (q *faultQueue) take(c *call) *Fault {
	q.mu.Lock()
	pending := slices.Clone(q.pending)
	q.mu.Unlock()
	for _, p := range pending {
		if p.matches(c) && q.use(p) {
			return &p.Fault
		}
	}
	return &Fault{}
}

func (q *faultQueue) use(p *pendingFault) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.Times == 0 {
		return true
	}
	if p.left <= 0 {
		return false
	}
	p.left--
	return true
}
