package s3sinktest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// memoryHost is the host name of an [InMemory] server.
const memoryHost = "s3.s3sink.test"

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// listen sets the server's listener, URL and transport.
func (s *Server) listen(o options) {
	var dial dialFunc
	host := memoryHost
	if o.inMemory {
		l := newPipeListener()
		s.listener, dial = l, l.dial
	} else {
		s.listener, dial = listenTCP()
		host = s.listener.Addr().String()
	}
	s.listener, dial = &gatedListener{s.listener, s.gate}, s.gate.dialer(dial)
	s.url = "http://" + host
	s.transport = func() *http.Transport {
		return &http.Transport{DialContext: dial, DisableCompression: true}
	}
	if !o.tls {
		return
	}

	cert := certificate()
	s.url = "https://" + host
	// A listener that already speaks TLS keeps net/http from offering HTTP/2,
	// which S3 does not have.
	s.listener = tls.NewListener(s.listener, &tls.Config{Certificates: []tls.Certificate{cert}})
	roots := x509.NewCertPool()
	if !o.untrusted {
		roots.AddCert(cert.Leaf)
	}
	s.transport = func() *http.Transport {
		return &http.Transport{
			DialContext:        dial,
			DisableCompression: true,
			TLSClientConfig:    &tls.Config{RootCAs: roots},
		}
	}
}

// listenTCP listens on the loopback interface. Its dial function ignores the
// address asked for: bucket.localhost need not resolve, and a client under test
// cannot leave the machine.
func listenTCP() (net.Listener, dialFunc) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = net.Listen("tcp6", "[::1]:0"); err != nil {
			panic(fmt.Sprintf("s3sinktest: no port to listen on: %v", err))
		}
	}
	addr := l.Addr()
	return l, func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network(), addr.String())
	}
}

// pipeListener accepts what its dial method connects.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := newPipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.Addr(), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

// certificate is made once for all servers of the process: the key is not a
// secret worth more, and making one takes longer than a short test.
var certificate = sync.OnceValue(func() tls.Certificate {
	cert, err := newCertificate()
	if err != nil {
		panic(fmt.Sprintf("s3sinktest: certificate: %v", err))
	}
	return cert
})

func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{Organization: []string{"s3sinktest"}},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		// A wildcard covers one label, so buckets need one of their own.
		DNSNames: []string{
			"localhost", "*.localhost", "example.com", "*.example.com",
			"*.s3sink.test", "*." + memoryHost,
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
