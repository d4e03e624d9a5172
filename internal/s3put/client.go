// Package s3put stores one object in S3 and classifies the answers. It is the only
// package under internal that uses the AWS SDK.
package s3put

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Settings are the bucket, the request headers and the credentials of a client.
type Settings struct {
	AWS        aws.Config // its credentials and region are not used
	Bucket     string
	Region     string // "" discovers it, unless Endpoint is set
	HintRegion string // first region to ask during discovery
	Endpoint   string // "" is the endpoint of the AWS configuration, or of AWS
	PathStyle  bool
	CreateOnly *bool // nil: on at AWS endpoints
	SignBody   *bool // nil: on at other endpoints than AWS
	Headers    Headers
	Version    string // of the library, for the User-Agent
	OwnHTTP    bool   // AWS.HTTPClient is not shared with the application

	// CloseProvider is called by Close for each provider that Credentials has
	// returned.
	CloseProvider func(aws.CredentialsProvider)

	// Credentials is called once for each region: for the bucket's region and,
	// during discovery, possibly for HintRegion.
	Credentials func(s3Region string) aws.CredentialsProvider
}

// Result describes a stored object.
type Result struct {
	ETag      string
	VersionID string

	// Existed is true if the key already existed. Keys are unique, so an earlier
	// attempt has stored the object and its answer was lost.
	Existed bool
}

// errNotS3 is the error of a success status that S3 cannot have sent, such as the
// login page of a network or the page of a proxy. If it counted as a success, the
// events would be lost.
var errNotS3 = errors.New("the answer has a success status but no ETag, so it is not from the store: check the endpoint and the proxies on the way")

// Client stores objects in one bucket. It is safe for concurrent use.
type Client struct {
	set Settings

	mu        sync.Mutex
	providers map[string]aws.CredentialsProvider // by region
	finding   chan struct{}                      // closed when the goroutine that connects has ended
	conn      *connection                        // nil before the first attempt
	ended     string                             // access key id of the last session that was dropped
}

// connection holds the SDK client and the credentials for one region. It is
// replaced when the bucket is in another region.
type connection struct {
	region     string
	s3         *s3.Client // shared by all attempts, because it holds the clock offset
	creds      aws.CredentialsProvider
	createOnly bool
	signBody   bool
}

// New returns a client. It makes no request: the first attempt discovers the
// region if necessary.
func New(set Settings) *Client {
	return &Client{set: set, providers: map[string]aws.CredentialsProvider{}}
}

// Put stores one object. It returns nil only after S3 has acknowledged the whole
// body, or has said that the key already exists. Every other answer is an
// [*Error].
func (c *Client) Put(ctx context.Context, r Request) (Result, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return Result{}, newError(err)
	}
	// Put retrieves the credentials, not the SDK, so that it knows the session
	// that an answer is about.
	creds, err := conn.creds.Retrieve(ctx)
	if err != nil {
		return Result{}, newError(err)
	}
	result, e := c.put(ctx, conn, creds, r)
	if e == nil {
		return result, nil
	}
	if e.Class == Refresh || e.Code == "InvalidAccessKeyId" && creds.SessionToken != "" {
		e.Class = Refresh // S3 answers InvalidAccessKeyId if the role of the session was deleted and created again
		c.drop(conn, creds.AccessKeyID)
	}
	return Result{}, e
}

// PutAs is Put with other credentials than those of the Settings.
func (c *Client) PutAs(ctx context.Context, creds aws.Credentials, r Request) (Result, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return Result{}, newError(err)
	}
	result, e := c.put(ctx, conn, creds, r)
	if e != nil {
		return Result{}, e
	}
	return result, nil
}

func (c *Client) put(ctx context.Context, conn *connection, creds aws.Credentials, r Request) (Result, *Error) {
	if r.Progress == nil {
		r.Progress = func() {}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: r.Progress})
	if r.NewConnection {
		c.closeIdle()
	}
	body := &body{ReadSeeker: r.Body, progress: r.Progress}
	r.Body = body
	var sum [sha256.Size]byte
	if conn.signBody {
		var err error
		if sum, err = r.SHA256(); err != nil {
			return Result{}, newError(err)
		}
	}
	r.Progress()
	out, err := conn.s3.PutObject(ctx, c.input(conn, r), func(o *s3.Options) {
		o.Credentials = credentials.StaticCredentialsProvider{Value: creds}
		if conn.signBody {
			o.APIOptions = append(o.APIOptions, withPayloadHash(sum))
		}
	})
	if err == nil && aws.ToString(out.ETag) == "" {
		id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
		return Result{}, &Error{Status: http.StatusOK, RequestID: id, Err: errNotS3}
	}
	if err == nil {
		return Result{ETag: aws.ToString(out.ETag), VersionID: aws.ToString(out.VersionId)}, nil
	}
	e := newError(err)
	failed := body.err.Load()
	switch {
	case conn.createOnly && !r.Replace && e.Status == http.StatusPreconditionFailed && e.Named:
		return Result{Existed: true}, nil
	case failed != nil:
		e = &Error{Class: Unreadable, Err: *failed} // the read error is the cause of any other error
	case e.Class == Elsewhere:
		c.follow(conn, e)
	}
	return Result{}, e
}

// Region returns the bucket's region. It asks S3 for an unknown region.
func (c *Client) Region(ctx context.Context) (string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return "", newError(err)
	}
	return conn.region, nil
}

// Close closes the credentials providers, and the idle connections unless the
// application shares the HTTP client. No attempt may be running.
func (c *Client) Close() {
	for _, p := range c.providers {
		if c.set.CloseProvider != nil {
			c.set.CloseProvider(p)
		}
	}
	if c.set.OwnHTTP {
		c.closeIdle()
	}
}

func (c *Client) closeIdle() {
	if h, ok := c.set.AWS.HTTPClient.(interface{ CloseIdleConnections() }); ok {
		h.CloseIdleConnections()
	}
}

// Renew drops all cached credentials, so that the next upload gets new ones.
// Credentials may already exist before the first upload, from region discovery.
func (c *Client) Renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.providers {
		if cache, ok := p.(interface{ Invalidate() }); ok {
			cache.Invalidate()
		}
	}
}

// drop discards a session that S3 no longer accepts. Many attempts may report the
// same session, some of them after its replacement is in use.
func (c *Client) drop(conn *connection, accessKeyID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if keyed, ok := conn.creds.(interface{ InvalidateKey(string) }); ok {
		keyed.InvalidateKey(accessKeyID)
		return
	}
	if c.ended == accessKeyID {
		return
	}
	c.ended = accessKeyID
	if cache, ok := conn.creds.(interface{ Invalidate() }); ok {
		cache.Invalidate()
	}
}

// connect returns the connection. The first attempt makes it; other attempts wait
// for it until their ctx ends.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	for {
		c.mu.Lock()
		if c.conn != nil {
			defer c.mu.Unlock()
			return c.conn, nil
		}
		wait := c.finding
		if wait == nil {
			c.finding = make(chan struct{})
			c.mu.Unlock()
			return c.discoverAndConnect(ctx)
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// discoverAndConnect makes the connection. Its deferred function wakes the waiting
// attempts even if the SDK panics.
func (c *Client) discoverAndConnect(ctx context.Context) (conn *connection, err error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.finding)
		c.finding = nil
		c.conn = conn
	}()
	region, err := c.region(ctx)
	if err != nil {
		return nil, err
	}
	return c.connectionTo(region), nil
}

func (c *Client) connectionTo(region string) *connection {
	conn := &connection{region: region, creds: c.credentials(region)}
	conn.s3 = c.build(region, conn.creds)
	isAWS := conn.s3.Options().BaseEndpoint == nil
	conn.createOnly = setOr(c.set.CreateOnly, isAWS)
	conn.signBody = setOr(c.set.SignBody, !isAWS)
	return conn
}

// setOr returns *set, or automatic if set is nil.
func setOr(set *bool, automatic bool) bool {
	if set != nil {
		return *set
	}
	return automatic
}

// signer does not sign Accept-Encoding: Google Cloud Storage changes that header in
// transit and then refuses the signature
// (github.com/aws/aws-sdk-go-v2/issues/1816).
type signer struct{ *v4.Signer }

func (s signer) SignHTTP(ctx context.Context, creds aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	r.Header.Del("Accept-Encoding")
	return s.Signer.SignHTTP(ctx, creds, r, payloadHash, service, region, at, opts...)
}

// AmbientEndpoint returns the S3 endpoint that cfg names, from the environment
// or a profile, or "".
func AmbientEndpoint(cfg aws.Config) string {
	return aws.ToString(s3.NewFromConfig(cfg).Options().BaseEndpoint)
}

// credentials returns the provider of a region. It keeps one for each region,
// because providers cache sessions.
func (c *Client) credentials(region string) aws.CredentialsProvider {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.providers[region]
	if !ok {
		p = c.set.Credentials(region)
		c.providers[region] = p
	}
	return p
}

func (c *Client) build(region string, creds aws.CredentialsProvider) *s3.Client {
	return s3.NewFromConfig(c.set.AWS, func(o *s3.Options) {
		o.Region = region
		o.Credentials = creds
		o.UsePathStyle = c.set.PathStyle
		o.APIOptions = append(o.APIOptions, awsmiddleware.AddUserAgentKeyValue("s3sink", c.set.Version))
		if c.set.Endpoint != "" {
			o.BaseEndpoint = &c.set.Endpoint
		}
		o.HTTPSignerV4 = signer{v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
		// The uploader retries. The retryer of the SDK has a quota that an
		// outage uses up.
		o.Retryer = aws.NopRetryer{}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		// The SDK sends Expect: 100-continue but does not wait for the
		// answer, so an early refusal would look like a broken connection.
		// Without the header the refusal is read.
		o.ContinueHeaderThresholdBytes = -1
	})
}
