package s3sinktest

import (
	"bytes"
	"log"
	"net"
	"net/http"
	"sync"
)

// AccountID owns every bucket whose [BucketSettings] say nothing else.
const AccountID = "111122223333"

// DefaultRegion is where [Server.CreateBucket] puts a bucket without a region.
const DefaultRegion = "us-east-1"

// Server is an S3 and STS server. Make one with [NewServer].
//
// Every method may be called from several goroutines at once, and none but
// [Server.Close] waits for a request. What a method returns is the caller's to
// keep and change.
type Server struct {
	url       string
	listener  net.Listener
	transport func() *http.Transport
	http      *http.Server

	serving sync.WaitGroup // the goroutine that accepts connections
	conns   sync.WaitGroup // one for every connection that is open
	closing chan struct{}  // closed when Close begins: wakes stalled requests
	closed  chan struct{}  // closed when Close has finished

	ignoresChecksums bool

	faults faultQueue
	gate   *gate

	mu         sync.Mutex // guards everything below; held for no I/O
	isClosing  bool
	transports []*http.Transport
	buckets    map[string]*bucket
	keys       map[string]credential // by access key ID
	roles      map[string]role       // by ARN
	kmsKeys    map[string]kmsKey     // by ARN
	requests   []Request
	storedPuts int

	wrongRegion RegionAnswer
}

// An Option changes how [NewServer] serves.
type Option func(*options)

type options struct {
	tls, untrusted, inMemory, noChecksums bool
}

// TLS serves https with a self-signed certificate that [Server.HTTPClient]
// trusts. It is valid from 1999 to 2099, because the clock of a
// testing/synctest bubble starts in 2000, for 127.0.0.1, localhost, example.com
// and the names below s3sink.test. The default is plain http.
func TLS() Option { return func(o *options) { o.tls = true } }

// UntrustedTLS serves https like [TLS], with a certificate that no client trusts,
// [Server.HTTPClient] included: every handshake fails.
func UntrustedTLS() Option { return func(o *options) { o.tls, o.untrusted = true, true } }

// InMemory serves over buffers in memory in place of TCP, so that a
// testing/synctest bubble can tell when all its goroutines wait. Writing to a
// connection never blocks, whether or not the other side reads. [Server.URL]
// names a host that does not exist: only [Server.HTTPClient] can reach it. The
// server, its clients and the call of Close have to be inside the bubble.
func InMemory() Option { return func(o *options) { o.inMemory = true } }

// IgnoreChecksums stores objects whatever their x-amz-checksum- headers say, as
// stores do that do not know these headers. It still compares a body with the
// x-amz-content-sha256 of a request that is signed with one.
func IgnoreChecksums() Option { return func(o *options) { o.noChecksums = true } }

// NewServer starts a server and returns at once; it already accepts requests.
// It is empty: give it buckets, users and roles. It panics when it cannot
// listen on the loopback interface. Call [Server.Close] when done.
func NewServer(opts ...Option) *Server {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s := &Server{
		gate:    new(gate),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
		buckets: make(map[string]*bucket),
		keys:    make(map[string]credential),
		roles:   make(map[string]role),
		kmsKeys: make(map[string]kmsKey),

		ignoresChecksums: o.noChecksums,
	}
	s.listen(o)
	s.http = &http.Server{
		Handler:   http.HandlerFunc(s.serve),
		ConnState: s.connState,
		ErrorLog:  log.New(quietLog{}, "", 0),
	}
	s.serving.Go(func() { _ = s.http.Serve(s.listener) }) // returns http.ErrServerClosed after Close
	return s
}

// URL is the address of both S3 and STS, without a slash at the end. Objects
// are found under it in path style (URL/bucket/key). Virtual-host style works
// for bucket.s3.s3sink.test, and bucket.localhost with the port of URL.
func (s *Server) URL() string { return s.url }

// HTTPClient returns a new client with a connection pool of its own. It trusts
// the server's certificate, connects to this server whatever host it is asked
// for, uses no proxy, and hands out redirects and compressed bodies as they
// are. The caller may change it; Close closes its idle connections.
func (s *Server) HTTPClient() *http.Client {
	t := s.transport()
	s.mu.Lock()
	s.transports = append(s.transports, t)
	s.mu.Unlock()
	return &http.Client{
		Transport: t,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// Close stops accepting, cuts the connections that are open, stalled ones
// included, and returns when no request is being handled any more. It closes
// the idle connections of every client from [Server.HTTPClient]. Calling it
// again waits for the first call. Objects and Requests can still be read.
func (s *Server) Close() {
	s.mu.Lock()
	first := !s.isClosing
	s.isClosing = true
	transports := s.transports
	s.mu.Unlock()
	if !first {
		<-s.closed
		return
	}
	defer close(s.closed)

	close(s.closing)
	_ = s.http.Close() // closes all connections, even if it fails to close the listener
	s.serving.Wait()   // first: conns.Add is only called by that goroutine
	s.conns.Wait()
	for _, t := range transports {
		t.CloseIdleConnections()
	}
}

// connState counts open connections. net/http reports StateClosed as the last
// thing a connection's goroutine does, after its handler has returned.
func (s *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed:
		s.conns.Done()
	}
}

// quietLog passes on what net/http logs, but not failed handshakes: clients
// that change their mind cause them all the time, and a client that does not
// trust the certificate has an error of its own.
type quietLog struct{}

func (quietLog) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte("TLS handshake error")) {
		log.Print(string(p))
	}
	return len(p), nil
}
