// Package s3put stores one object in S3 and says what an answer means. It is
// the only package below the root that knows the AWS SDK.
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

// Settings say where objects go and as whom.
type Settings struct {
	AWS        aws.Config // its credentials and region are not used
	Bucket     string
	Region     string // "" discovers it, unless Endpoint is set
	HintRegion string // where discovery asks first
	Endpoint   string // "" is AWS's, or what AWS names
	PathStyle  bool
	CreateOnly *bool // nil: on when the endpoint is AWS
	SignBody   *bool // nil: on when the endpoint is not AWS
	Headers    Headers
	Version    string // of the library, for the User-Agent
	OwnHTTP    bool   // nobody else uses AWS.HTTPClient

	// LetGo is told at the end of each provider that Credentials has returned.
	LetGo func(aws.CredentialsProvider)

	// Credentials is called once for a region: the bucket's, and before
	// that perhaps the hint.
	Credentials func(s3Region string) aws.CredentialsProvider
}

// Result is what is known of a stored object.
type Result struct {
	ETag      string
	VersionID string

	// Existed says that the key was taken. Nobody else draws our keys, so
	// an earlier attempt stored the object and its answer was lost.
	Existed bool
}

// errNotS3 is a success that S3 cannot have sent: a login page of the network,
// or a proxy's. Taken for one, the events would be gone.
var errNotS3 = errors.New("the answer says that the object is stored but names no ETag; is it the store that answers?")

// Client stores objects in one bucket. It is safe for concurrent use, and one
// client serves a sink for its life.
type Client struct {
	set Settings

	mu        sync.Mutex
	providers map[string]aws.CredentialsProvider // by region
	finding   chan struct{}                      // closed when the goroutine that connects is done
	conn      *connection                        // nil before the first attempt
	ended     string                             // access key id of the last session that was dropped
}

// connection is how attempts reach the bucket, until it turns out to be in
// another region.
type connection struct {
	region     string
	s3         *s3.Client // one for all attempts: the SDK keeps the clock offset on it
	creds      aws.CredentialsProvider
	createOnly bool
	signBody   bool
}

// New returns a client. It makes no request: the region is discovered by the
// first attempt that needs it.
func New(set Settings) *Client {
	return &Client{set: set, providers: map[string]aws.CredentialsProvider{}}
}

// Put stores one object. It returns nil only once S3 has acknowledged the
// whole body, or has said that the key is already taken; every other answer is
// an [*Error]. Put is called from several goroutines.
func (c *Client) Put(ctx context.Context, r Request) (Result, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return Result{}, newError(err)
	}
	// Asked here and not by the SDK, to know which session an answer is about.
	creds, err := conn.creds.Retrieve(ctx)
	if err != nil {
		return Result{}, newError(err)
	}
	result, e := c.put(ctx, conn, creds, r)
	if e == nil {
		return result, nil
	}
	if e.Class == Refresh || e.Code == "InvalidAccessKeyId" && creds.SessionToken != "" {
		e.Class = Refresh // S3 says the second of a session whose role was made again
		c.drop(conn, creds.AccessKeyID)
	}
	return Result{}, e
}

// PutAs is Put with credentials that are not the sink's own.
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
		e = &Error{Class: Unreadable, Err: *failed} // whatever came of it
	case e.Class == Elsewhere:
		c.follow(conn, e)
	}
	return Result{}, e
}

// Region returns the bucket's region, and asks S3 for it if it is not known.
func (c *Client) Region(ctx context.Context) (string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return "", newError(err)
	}
	return conn.region, nil
}

// Close lets go of the credentials, and of the connections if they are the
// client's alone. No attempt may be under way.
func (c *Client) Close() {
	for _, p := range c.providers {
		if c.set.LetGo != nil {
			c.set.LetGo(p)
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

// Renew drops all credentials, so that the next upload gets new ones. There may
// be some before the first upload: of who has asked for the region.
func (c *Client) Renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.providers {
		if cache, ok := p.(interface{ Invalidate() }); ok {
			cache.Invalidate()
		}
	}
}

// drop lets go of a session that S3 does not take any more. Many attempts may
// say so of the same one, and some when there is another one already.
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

// connect returns the connection, made by whichever attempt comes first.
// Others wait for it, each no longer than its own ctx.
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

// discoverAndConnect ends the wait of others however it ends itself: a panic of
// the SDK passes through it.
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

// setOr returns what is set, or else automatic.
func setOr(set *bool, automatic bool) bool {
	if set != nil {
		return *set
	}
	return automatic
}

// signer leaves Accept-Encoding unsigned: Google's store changes it on the way
// and then refuses the signature (github.com/aws/aws-sdk-go-v2/issues/1816).
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

// credentials keeps the provider of a region, because it caches sessions.
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
		// Retries are the uploader's: the SDK's has a quota that an
		// outage drains.
		o.Retryer = aws.NopRetryer{}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		// The SDK's requests carry Expect: 100-continue but do not wait
		// for the answer, so an early refusal is lost as a broken
		// connection. Without the header it is read.
		o.ContinueHeaderThresholdBytes = -1
	})
}
