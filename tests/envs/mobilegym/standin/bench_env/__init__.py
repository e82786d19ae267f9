raise ImportError("the real package needs Playwright here")
