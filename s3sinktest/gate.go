package s3sinktest

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Refuse makes the server refuse new connections, until it is called with
// false. Idle connections are closed and others with the answer they wait for,
// so that a client with a pool is refused as well. Clients from
// [Server.HTTPClient] get ECONNREFUSED; other clients of a TCP server get a
// connection that is reset at once, because its port stays taken.
func (s *Server) Refuse(refuse bool) {
	s.gate.refuse(refuse)
	s.http.SetKeepAlivesEnabled(!refuse) // closes idle ones when there are to be none
}

// Freeze makes the server stop reading and writing, on connections that it has
// and on new ones, until it is called with false: to its clients it looks like
// a machine that has lost its network. No connection is closed. Bytes
// sent during a freeze are read after it. A request that was being handled is
// finished, and its answer is sent after the freeze. [Server.Close] ends a freeze.
func (s *Server) Freeze(freeze bool) { s.gate.freeze(freeze) }

// gate stands between the server and the network, below TLS.
type gate struct {
	mu       sync.Mutex // guards the fields below; never held while waiting
	refusing bool
	frozen   chan struct{} // nil unless frozen; closed by the thaw
}

func (g *gate) refuse(refuse bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusing = refuse
}

func (g *gate) freeze(freeze bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case freeze && g.frozen == nil:
		g.frozen = make(chan struct{})
	case !freeze && g.frozen != nil:
		close(g.frozen)
		g.frozen = nil
	}
}

func (g *gate) refuses() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusing
}

// thaw is closed when the server goes on, and nil when it is not frozen.
func (g *gate) thaw() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frozen
}

// dialer refuses in the client, with what the kernel would say.
func (g *gate) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if g.refuses() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		return dial(ctx, network, addr)
	}
}

type gatedListener struct {
	net.Listener
	gate *gate
}

func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.gate.refuses() {
			return &gatedConn{Conn: conn, gate: l.gate, closed: make(chan struct{})}, nil
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // Close then resets the connection; without it the client sees EOF
		}
		_ = conn.Close() // the client sees the refusal in any case
	}
}

// gatedConn is the server's end of a connection.
type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}

	mu      sync.Mutex // guards writeBy; held for no wait
	writeBy time.Time
}

// wait returns when the server is not frozen, or the connection closed.
func (c *gatedConn) wait() {
	for thaw := c.gate.thaw(); thaw != nil; thaw = c.gate.thaw() {
		select {
		case <-thaw:
		case <-c.closed:
			return
		}
	}
}

// Read returns its bytes only after the thaw: when a freeze begins, Read mostly
// waits for the client's next request, which the server must not see. Deadlines
// do not end the wait. Only net/http sets one, to cancel a background read, and
// that can wait for the thaw.
func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wait()
	return n, err
}

// Write gives up at once if it has a deadline. Only the farewell of TLS has
// one, which is written with locks held that the thaw may depend on.
func (c *gatedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	inHurry := !c.writeBy.IsZero()
	c.mu.Unlock()
	if inHurry && c.gate.thaw() != nil {
		return 0, os.ErrDeadlineExceeded
	}
	c.wait()
	return c.Conn.Write(p)
}

func (c *gatedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.writeBy = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// CloseWrite is what net/http looks for on a connection.
func (c *gatedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
