package s3sinktest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A Request is one request that the server has finished with.
type Request struct {
	Time      time.Time // when its body had not been read yet
	Service   string    // "s3" or "sts"
	Operation string    // "PutObject", "AssumeRole", ...

	Bucket string // S3
	Key    string
	Form   url.Values // STS

	Header        http.Header // as sent, Authorization included
	ContentLength int64       // -1 when the request did not say

	// Principal is the ARN of the user or session whose signature was accepted;
	// empty when there was none.
	Principal string

	// Status and Code are the server's decision, also when a [Fault] lost the
	// response. Status is zero when there was none: the request was stalled, or
	// its client left during a delay.
	Status int
	Code   string // error code; empty on success

	Stored bool // whether a PUT's body was stored
}

// Requests returns every finished request, in the order of their answers. A client that has its answer finds the request here. The list
// grows for as long as the server lives.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.requests)
	for i := range out {
		out[i].Header = out[i].Header.Clone()
		out[i].Form = url.Values(http.Header(out[i].Form).Clone())
	}
	return out
}

// StoredPuts counts the PUTs whose body was stored, those whose response was
// lost included.
func (s *Server) StoredPuts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.storedPuts
}

func (s *Server) record(c *call, a answer) {
	r := Request{
		Time:          c.arrived,
		Service:       c.service,
		Operation:     c.operation,
		Bucket:        c.bucket,
		Key:           c.key,
		Form:          maps.Clone(c.form),
		Header:        c.r.Header.Clone(),
		ContentLength: c.r.ContentLength,
		Principal:     c.caller.arn,
		Status:        a.status,
		Code:          a.code,
		Stored:        a.stored,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
}
