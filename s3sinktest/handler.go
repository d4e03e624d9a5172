package s3sinktest

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The services, as a credential scope names them.
const (
	serviceS3  = "s3"
	serviceSTS = "sts"
)

// call is one request on its way through the server.
type call struct {
	r       *http.Request
	arrived time.Time

	input   *input
	body    []byte // once input has been read
	bodyErr error  // the body was cut short or too large

	service     string
	operation   string
	bucket, key string     // S3
	form        url.Values // STS

	authorization string
	caller        principal // set once the signature has been checked
}

// answer is what a call comes to. It is complete before any of it is sent, so
// that a client which has seen its answer also finds it in Requests.
type answer struct {
	status int
	code   string // of an error
	header http.Header
	body   []byte
	stored bool
	closes bool // the connection ends with this answer
}

// serve takes one request through fault, body, signature and operation.
//
// Unless a fault says otherwise the body is read before anything is answered: a
// client may write it to the end before it reads, and a handler that leaves
// part of it unread is not told when its client goes away.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := newCall(r)
	fault := s.faults.take(c)
	if !fault.receive(c, s.closing) || !fault.wait(c, s.closing) {
		s.record(c, answer{})
		panic(http.ErrAbortHandler)
	}
	var a answer
	if fault.answers() {
		s.authenticate(c) // for the record only
		a = fault.answer(c)
	} else {
		a = s.handle(c)
	}
	s.record(c, a)
	if fault.LoseResponse {
		panic(http.ErrAbortHandler)
	}
	if fault.CutAnswer {
		a.cut(w, c)
		panic(http.ErrAbortHandler)
	}
	a.write(w, c)
}

// newCall reads the body of an STS request, which names the operation, and no
// other body.
func newCall(r *http.Request) *call {
	c := &call{r: r, arrived: time.Now(), authorization: r.Header.Get("Authorization")}
	c.input = newInput(r)
	c.service = serviceOf(c)
	if c.service == serviceSTS {
		c.readBody()
		c.form, _ = url.ParseQuery(string(c.body)) // a parameter that cannot be parsed is missing, and refused as missing
		c.operation = c.form.Get("Action")
	} else {
		c.bucket, c.key = target(r)
		c.operation = s3Operation(c)
	}
	return c
}

func (c *call) readBody() { c.body, c.bodyErr = c.input.all() }

// serviceOf goes by the credential scope, and for a request without one by the
// fact that only STS takes a form.
func serviceOf(c *call) string {
	if auth, ok := parseAuthorization(c.authorization); ok {
		if auth.service == serviceSTS {
			return serviceSTS
		}
		return serviceS3
	}
	form := strings.HasPrefix(c.r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
	if form && c.r.Method == http.MethodPost && c.r.URL.Path == "/" {
		return serviceSTS
	}
	return serviceS3
}

// target reads bucket and key from a virtual-host or a path-style request.
func target(r *http.Request) (bucket, key string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	for _, base := range []string{memoryHost, "localhost"} {
		if bucket, ok := strings.CutSuffix(strings.ToLower(host), "."+base); ok {
			return bucket, path
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

func (s *Server) handle(c *call) answer {
	if errors.Is(c.bodyErr, errTooLarge) {
		return c.refuse(&apiError{status: 400, code: "EntityTooLarge",
			message: "Your proposed upload exceeds the maximum allowed size"})
	}
	if c.bodyErr != nil {
		return c.refuse(&apiError{status: 400, code: "IncompleteBody",
			message: "You did not provide the number of bytes specified by the Content-Length HTTP header"})
	}
	if err := s.authenticate(c); err != nil {
		return s.nameRegion(c, c.refuse(err))
	}
	if c.service == serviceSTS {
		return s.handleSTS(c)
	}
	return s.nameRegion(c, s.handleS3(c))
}

func (a answer) write(w http.ResponseWriter, c *call) {
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	if c.bodyErr != nil || a.closes {
		h.Set("Connection", "close") // the rest of the body may still be in the way
	}
	w.WriteHeader(a.status)
	if c.r.Method != http.MethodHead {
		_, _ = w.Write(a.body) // an error means that the client has disconnected
	}
}

// cut sends half of the body, after headers that promise all of it; of an empty
// one they promise a byte.
func (a answer) cut(w http.ResponseWriter, c *call) {
	promised := max(len(a.body), 1)
	a.header.Set("Content-Length", strconv.Itoa(promised))
	a.body = a.body[:len(a.body)/2]
	a.write(w, c)
	_ = http.NewResponseController(w).Flush() // an error means that the client has disconnected
}
