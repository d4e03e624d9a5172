package contract

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildLimit is the maximum time to build a server. A build with an empty cache
// takes two minutes.
const buildLimit = 15 * time.Minute

// startLimit is the maximum time from the start of a server to its first answer.
const startLimit = 3 * time.Minute

// TestMain ends the processes of the tests, and prints why tests were skipped.
func TestMain(m *testing.M) {
	flag.Parse()
	if !isSet("test.parallel") {
		flag.Set("test.parallel", "16") // the tests wait most of the time
	}
	code := m.Run()
	stopAll()
	for why := range skipped {
		fmt.Println("SKIP", why)
	}
	os.Exit(code)
}

var (
	skippedMu sync.Mutex
	skipped   = make(map[string]bool)
)

// skip skips a test because a program is missing. TestMain prints the reason, and
// the gate lists it.
func skip(t *testing.T, why string) {
	t.Helper()
	skippedMu.Lock()
	skipped[why] = true
	skippedMu.Unlock()
	t.Skip(why)
}

func isSet(name string) bool {
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

var (
	runningMu sync.Mutex
	running   []func()
)

// atEnd registers f to be called after all tests.
func atEnd(f func()) {
	runningMu.Lock()
	defer runningMu.Unlock()
	running = append(running, f)
}

func stopAll() {
	runningMu.Lock()
	defer runningMu.Unlock()
	for i := len(running) - 1; i >= 0; i-- {
		running[i]()
	}
}

// Each of these functions builds its program once.
var (
	buildVersitygw = sync.OnceValues(func() (string, error) { return build("versitygw", "versitygw") })
	buildMinIO     = sync.OnceValues(func() (string, error) { return build("minio", "github.com/minio/minio") })
	buildAddUser   = sync.OnceValues(func() (string, error) {
		return build("minio", "github.com/s3sink/s3sink/contract/servers/minio")
	})
)

// build builds a tool of a module in servers/, and returns its path in Go's build
// cache. The tool is therefore linked once, and its version is pinned by that
// module's go.mod.
func build(module, tool string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", tool)
	cmd.Dir = filepath.Join("servers", module)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", tool, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// runTool runs a program to its end, with stdin as its input, and returns its
// standard output.
func runTool(name, program string, env []string, stdin []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", name, err, out, &stderr)
	}
	return out, nil
}

// environmentWithout returns the environment without the variables whose names
// begin with the prefix.
func environmentWithout(prefix string) []string {
	return slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, prefix) })
}

// process is a program that the tests have started.
type process struct {
	name   string
	stdin  io.WriteCloser
	stdout io.Reader
	log    syncBuffer
	kill   func()
	done   chan struct{} // closed when the process has ended
	err    error         // result of Wait, set before done is closed
}

// start starts a program, which is killed after all tests.
func start(name, path string, env []string, args ...string) (*process, error) {
	p := &process{name: name, done: make(chan struct{})}
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Stderr = &p.log
	dieWithParent(cmd)
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not cmd.StdoutPipe: cmd.Wait would close it while the reader uses it.
	stdout, w := io.Pipe()
	p.stdout = stdout
	cmd.Stdout = w

	started := make(chan error)
	go func() {
		// Pdeathsig kills the process when the thread that started it ends, so
		// that thread must not end: https://go.dev/issue/27505.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		w.CloseWithError(fmt.Errorf("%s has ended: %v", name, p.err))
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.kill = func() {
		p.stdin.Close()
		cmd.Process.Kill() // an error means that the process has ended
		stdout.Close()
		<-p.done
	}
	atEnd(p.kill)
	return p, nil
}

// ready waits until a GET of the URL is answered with 200.
func (p *process) ready(client *http.Client, url string) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), startLimit, errors.New("it took too long"))
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-again.C:
		case <-p.done:
			return fmt.Errorf("%s has ended: %v\n%s", p.name, p.err, p.log.String())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, context.Cause(ctx), p.log.String())
		}
	}
}

// syncBuffer keeps the output of a process, for the report of a failure.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const most = 1 << 20 // enough to find the cause
	if b.buf.Len() < most {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A place holds the directory and the address of one server.
type place struct {
	scheme  string
	dir     string // removed after all tests
	address string // on the loopback interface, with a free port
	url     string
	id      identity // certificate of the server
	client  *http.Client
}

// launch calls start with a new place. Another process may take the port before
// the server listens on it, so a start that fails is repeated twice.
func launch[T any](scheme string, start func(place) (T, error)) (v T, err error) {
	id, err := newIdentity()
	if err != nil {
		return v, err
	}
	for range 3 {
		at := place{scheme: scheme, id: id, client: newClient(id)}
		if at.dir, err = tempDir(); err != nil {
			return v, err
		}
		if at.address, err = freeAddress(); err != nil {
			return v, err
		}
		at.url = scheme + "://" + at.address
		if v, err = start(at); err == nil {
			return v, nil
		}
	}
	return v, err
}

// serve starts a server, and waits until it answers a GET of the path health.
func (at place) serve(health, name, program string, env []string, args ...string) (*process, error) {
	p, err := start(name, program, env, args...)
	if err != nil {
		return nil, err
	}
	return p, p.ready(at.client, at.url+health)
}

// eachScheme returns a function per scheme that starts a server at its first call.
func eachScheme[T any](start func(scheme string) (T, error)) map[string]func() (T, error) {
	servers := make(map[string]func() (T, error))
	for _, scheme := range schemes {
		servers[scheme] = sync.OnceValues(func() (T, error) { return start(scheme) })
	}
	return servers
}

// freeAddress returns an address on the loopback interface that no process listens
// on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tempDir returns a directory that is removed after all tests.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "s3sink-contract-")
	if err != nil {
		return "", err
	}
	atEnd(func() { os.RemoveAll(dir) })
	return dir, nil
}

// identity is a certificate for the loopback interface, with its files.
type identity struct {
	cert, key string // files
	roots     *x509.CertPool
}

var newIdentity = sync.OnceValues(func() (identity, error) {
	dir, err := tempDir()
	if err != nil {
		return identity{}, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "s3sink contract tests"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return identity{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return identity{}, err
	}
	// MinIO requires these file names.
	id := identity{cert: filepath.Join(dir, "public.crt"), key: filepath.Join(dir, "private.key"), roots: x509.NewCertPool()}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	id.roots.AppendCertsFromPEM(cert)
	return id, errors.Join(
		os.WriteFile(id.cert, cert, 0o600),
		os.WriteFile(id.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
})

// newClient returns a client that trusts the servers, follows no redirect, and
// does not decompress bodies.
func newClient(id identity) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:    &tls.Config{RootCAs: id.roots},
			DisableCompression: true,
			// The SDK's own client also waits this long for a server to refuse
			// a request before the body is sent.
			ExpectContinueTimeout: time.Second,
			MaxIdleConnsPerHost:   32,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
