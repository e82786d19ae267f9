// Search runs in a worker, and a browser starts no worker from a page that was opened from disk. There it runs in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      const load = (address) =>
        new Promise((done, failed) => {
          const script = inside.document.createElement("script");
          script.src = address;
          script.onload = done;
          script.onerror = () => failed(new Error(`cannot load ${address}`));
          inside.document.head.append(script);
        });
      inside.importScripts = (...addresses) => addresses.reduce((before, one) => before.then(() => load(one)), Promise.resolve());
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.send = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      load(url).then(() => {
        this.ready = true;
        this.waiting.forEach(this.send);
      });
      this.frame = frame;
    }
    postMessage(data) {
      this.ready ? this.send(data) : this.waiting.push(data);
    }
    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
