// The Go program of test/compat/go-sdk.test.ts, on the unmodified Go SDK. `serve` is an app (SDK_PROTOCOL http or
// grpc); `call` runs one scenario against other apps and exits with 0 when everything was as expected.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	grpcservice "github.com/dapr/go-sdk/service/grpc"
	httpservice "github.com/dapr/go-sdk/service/http"
)

const limit = 30 * time.Second

func main() {
	if len(os.Args) > 1 && os.Args[1] == "call" {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := call(ctx, os.Args[2], os.Args[3:]); err != nil {
			log.Fatalf("%s: %v", os.Args[2], err)
		}
		fmt.Printf("%s: as expected\n", os.Args[2])
		return
	}
	if err := serve(); err != nil {
		log.Fatal(err)
	}
}

// app remembers what it was told.
type app struct {
	mutex sync.Mutex
	seen  []string
}

func serve() error {
	address := "127.0.0.1:" + os.Getenv("APP_PORT")
	var service common.Service
	if os.Getenv("SDK_PROTOCOL") == "grpc" {
		created, err := grpcservice.NewService(address)
		if err != nil {
			return err
		}
		service = created
	} else {
		service = httpservice.NewService(address)
	}
	state := &app{}
	handlers := map[string]common.ServiceInvocationHandler{
		"echo": state.echo,
		"ask":  ask,
		"seen": state.list,
		"fail": fail,
	}
	for name, handler := range handlers {
		if err := service.AddServiceInvocationHandler(name, handler); err != nil {
			return err
		}
	}
	subscription := &common.Subscription{PubsubName: "bus", Topic: "go.orders", Route: "/orders"}
	if err := service.AddTopicEventHandler(subscription, state.event); err != nil {
		return err
	}
	return service.Start()
}

func (a *app) echo(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
	text := fmt.Sprintf("%s %s %s", in.Verb, in.QueryString, in.Data)
	return &common.Content{Data: []byte(text), ContentType: "text/plain"}, nil
}

func fail(context.Context, *common.InvocationEvent) (*common.Content, error) {
	return nil, fmt.Errorf("refused on purpose")
}

// ask lets this app call another one through its own sidecar.
func ask(ctx context.Context, in *common.InvocationEvent) (*common.Content, error) {
	dapr, err := client.NewClient()
	if err != nil {
		return nil, err
	}
	content := &client.DataContent{ContentType: "text/plain", Data: []byte("from " + os.Getenv("APP_ID"))}
	answer, err := dapr.InvokeMethodWithContent(ctx, string(in.Data), "echo?a=1", "post", content)
	return &common.Content{Data: answer, ContentType: "text/plain"}, err
}

func (a *app) event(_ context.Context, event *common.TopicEvent) (bool, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	text, err := json.Marshal(event.Data)
	a.seen = append(a.seen, string(text))
	return false, err
}

func (a *app) list(context.Context, *common.InvocationEvent) (*common.Content, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return &common.Content{Data: []byte(strings.Join(a.seen, "\n")), ContentType: "text/plain"}, nil
}

func call(ctx context.Context, scenario string, apps []string) error {
	dapr, err := client.NewClient()
	if err != nil {
		return err
	}
	defer dapr.Close()
	scenarios := map[string]func(context.Context, client.Client, []string) error{
		"metadata": metadata, "invoke": invoke, "between": between, "failures": failures, "publish": publish, "state": state,
		"bulk": bulk, "declared": declared, "streams": streams, "transaction": transaction, "ttl": ttl, "lock": lock,
		"configuration": configuration, "keys": keys,
	}
	run, found := scenarios[scenario]
	if !found {
		return fmt.Errorf("no such scenario")
	}
	return run(ctx, dapr, apps)
}

func equal(what string, found []byte, wanted string) error {
	if string(found) == wanted {
		return nil
	}
	return fmt.Errorf("%s: %q, not %q", what, found, wanted)
}

func metadata(ctx context.Context, dapr client.Client, _ []string) error {
	if err := dapr.Wait(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := dapr.SetMetadata(ctx, "colour", "blue"); err != nil {
		return err
	}
	found, err := dapr.GetMetadata(ctx)
	if err != nil {
		return err
	}
	return equal("metadata", []byte(found.ID+" "+found.ExtendedMetadata["colour"]), os.Getenv("APP_ID")+" blue")
}

func invoke(ctx context.Context, dapr client.Client, apps []string) error {
	for _, id := range apps {
		content := &client.DataContent{ContentType: "text/plain", Data: []byte("hé \x00")}
		answer, err := dapr.InvokeMethodWithContent(ctx, id, "echo?a=1&b=%20", "put", content)
		if err != nil {
			return err
		}
		if err := equal(id, answer, "PUT a=1&b=%20 hé \x00"); err != nil {
			return err
		}
		if answer, err = dapr.InvokeMethod(ctx, id, "echo", "get"); err != nil {
			return err
		}
		if err := equal(id, answer, "GET  "); err != nil {
			return err
		}
	}
	return nil
}

func between(ctx context.Context, dapr client.Client, apps []string) error {
	for i, id := range apps {
		other := apps[(i+1)%len(apps)]
		content := &client.DataContent{ContentType: "text/plain", Data: []byte(other)}
		answer, err := dapr.InvokeMethodWithContent(ctx, id, "ask", "post", content)
		if err != nil {
			return err
		}
		if err := equal(id+" asks "+other, answer, "POST a=1 from "+id); err != nil {
			return err
		}
	}
	return nil
}

func failures(ctx context.Context, dapr client.Client, apps []string) error {
	_, err := dapr.InvokeMethod(ctx, "nobody", "x", "get")
	if err == nil || !strings.Contains(err.Error(), "failed to invoke, id: nobody") {
		return fmt.Errorf("unknown app: %v", err)
	}
	for _, id := range apps {
		if _, err := dapr.InvokeMethod(ctx, id, "fail", "get"); err == nil {
			return fmt.Errorf("%s did not fail", id)
		}
	}
	return nil
}

func publish(ctx context.Context, dapr client.Client, apps []string) error {
	if err := dapr.PublishEvent(ctx, "bus", "go.orders", map[string]int{"id": 7}); err != nil {
		return err
	}
	for _, id := range apps {
		for {
			answer, err := dapr.InvokeMethod(ctx, id, "seen", "get")
			if err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			if string(answer) == `{"id":7}` {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func state(ctx context.Context, dapr client.Client, _ []string) error {
	if err := dapr.SaveState(ctx, "statestore", "go", []byte("one"), nil); err != nil {
		return err
	}
	item, err := dapr.GetState(ctx, "statestore", "go", nil)
	if err != nil {
		return err
	}
	if err := equal("state", item.Value, "one"); err != nil {
		return err
	}
	if err := dapr.SaveStateWithETag(ctx, "statestore", "go", []byte("two"), item.Etag, nil); err != nil {
		return err
	}
	if err := dapr.SaveStateWithETag(ctx, "statestore", "go", []byte("three"), item.Etag, nil); err == nil {
		return fmt.Errorf("an old ETag was taken")
	}
	if err := dapr.DeleteState(ctx, "statestore", "go", nil); err != nil {
		return err
	}
	if item, err = dapr.GetState(ctx, "statestore", "go", nil); err != nil {
		return err
	}
	return equal("deleted state", item.Value, "")
}
