// Command minio adds users to a MinIO server, or changes their policies. The admin
// API requires encrypted secrets, and only MinIO's own client implements that
// encryption. This module also pins the version of the server, which is a separate
// program.
//
// Standard input is a JSON array of users. The variables ACCESS and SECRET hold the
// credentials of the server's owner.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

type user struct {
	ID, Secret string
	Policy     json.RawMessage // permissions of the user; null: none
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("minio: ")
	address := flag.String("address", "", "host and port of the server")
	cert := flag.String("cert", "", "its certificate; empty: it speaks http")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *address, *cert); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, cert string) error {
	var users []user
	if err := json.NewDecoder(os.Stdin).Decode(&users); err != nil {
		return err
	}
	client, err := madmin.NewWithOptions(address, &madmin.Options{
		Creds:  credentials.NewStaticV4(os.Getenv("ACCESS"), os.Getenv("SECRET"), ""),
		Secure: cert != "",
	})
	if err != nil {
		return err
	}
	if cert != "" {
		pem, err := os.ReadFile(cert)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + cert)
		}
		client.SetCustomTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
	}
	for _, u := range users {
		if err := add(ctx, client, u); err != nil {
			return err
		}
	}
	return nil
}

func add(ctx context.Context, client *madmin.AdminClient, u user) error {
	if err := client.AddUser(ctx, u.ID, u.Secret); err != nil {
		return err
	}
	if u.Policy == nil {
		return nil
	}
	if err := client.AddCannedPolicy(ctx, u.ID, u.Policy); err != nil {
		return err
	}
	_, err := client.AttachPolicy(ctx, madmin.PolicyAssociationReq{Policies: []string{u.ID}, User: u.ID})
	if madmin.ToErrorResponse(err).Code == "XMinioAdminPolicyChangeAlreadyApplied" {
		return nil // the user already had another policy of that name
	}
	return err
}
