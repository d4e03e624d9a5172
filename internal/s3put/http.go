package s3put

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// LoadConfig returns given, or the configuration that the SDK finds in the
// environment and the shared files. The configuration gets an HTTP client for a
// sink: client, or the client of the configuration, or a new one. own is true for
// a new client, which the sink must close.
//
// LoadDefaultConfig makes the new client, because only then does it add the
// certificates of AWS_CA_BUNDLE.
//
// The SDK logs to logger, unless given has a Logger. The messages of a
// ClientLogMode would contain session tokens and events, so logger does not get
// them.
func LoadConfig(ctx context.Context, given *aws.Config, client *http.Client, logger *slog.Logger) (cfg aws.Config, own bool, err error) {
	if given != nil {
		cfg = given.Copy()
	} else if cfg, err = config.LoadDefaultConfig(ctx, config.WithHTTPClient(awshttp.NewBuildableClient()), config.WithLogger(sdkLogger{logger})); err != nil {
		return aws.Config{}, false, err
	}
	if cfg.Logger == nil {
		cfg.Logger, cfg.ClientLogMode = sdkLogger{logger}, 0
	}
	own = client == nil && (given == nil || given.HTTPClient == nil)
	if client == nil {
		client = standard(cfg.HTTPClient)
	}
	cfg.HTTPClient = forSink(client)
	return cfg, own, nil
}

// standard returns c as the standard library's client.
func standard(c aws.HTTPClient) *http.Client {
	switch c := c.(type) {
	case nil:
		return &http.Client{Transport: awshttp.NewBuildableClient().GetTransport()}
	case *http.Client:
		return c
	case *awshttp.BuildableClient:
		return &http.Client{Transport: c.GetTransport(), Timeout: c.GetTimeout()}
	}
	return &http.Client{Transport: doer{c}}
}

type doer struct{ client aws.HTTPClient }

func (d doer) RoundTrip(r *http.Request) (*http.Response, error) { return d.client.Do(r) }

// maxErrorBody bounds the body of an error answer. The SDK buffers all of it, and
// an error page can have any length.
const maxErrorBody = 1 << 20

// forSink returns a copy of base for the sink. It does not follow redirects, so
// that data and signatures go only to the configured host, and it reads error
// bodies at once, up to maxErrorBody.
func forSink(base *http.Client) *http.Client {
	c := *base
	rt := c.Transport
	if rt == nil {
		rt = http.DefaultTransport
	}
	c.Transport = readErrors{rt}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// readErrors reads the body of an error before it returns the response. Without
// it the error code is lost when a server refuses a request early:
//
//  1. The server answers when it has the request's headers.
//  2. The SDK closes the request's body as soon as it has the response's headers.
//  3. net/http, still sending, finds the request's body too short and closes
//     the connection.
//  4. The SDK reads the response's body from the closed connection. A status
//     without a code is left, and an ended session looks like a bad request.
type readErrors struct{ next http.RoundTripper }

func (t readErrors) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode < http.StatusMultipleChoices {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body = &errorBody{
		Reader: io.MultiReader(bytes.NewReader(body), failing{err}),
		Closer: resp.Body,
		text:   body,
	}
	return resp, nil
}

// errorBody is the body of an error, which can be read after the SDK has read it.
type errorBody struct {
	io.Reader
	io.Closer
	text []byte
}

// read returns what the body held, or nil for a body of another type.
func (b *errorBody) read() []byte {
	if b == nil {
		return nil
	}
	return b.text
}

// failing is a reader that returns its error, or io.EOF if it is nil.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

// CloseIdleConnections makes [http.Client.CloseIdleConnections] work.
func (t readErrors) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
